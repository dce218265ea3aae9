// Addresses: #view or #clusters/<id>. A view's data is loaded when it is first seen.
(function () {
  "use strict";
  const { load } = window.explorer;
  const views = [...document.querySelectorAll("section.view")];
  const trouble = document.getElementById("trouble");
  const button = document.getElementById("theme");
  const filled = new Map();

  function fill(view) {
    if (!filled.has(view)) {
      filled.set(view, load(view.dataset.view).then((data) => {
        for (const place of view.querySelectorAll("[data-block]")) {
          window.explorer[place.dataset.kind](place, data[place.dataset.block]);
        }
      }).catch((error) => {
        filled.delete(view);
        throw error;
      }));
    }
    return filled.get(view);
  }

  function route() {
    const [name, detail = ""] = decodeURIComponent(window.location.hash.slice(1)).split("/");
    if (name === "content") {
      return; // the skip link
    }
    const view = views.find((one) => one.dataset.view === name) || views[0];
    views.forEach((one) => { one.hidden = one !== view; });
    document.querySelectorAll("nav a").forEach((link) => {
      link.dataset.view === view.dataset.view
        ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    });
    trouble.hidden = true;
    document.body.removeAttribute("data-ready");
    fill(view).then(() => {
      window.explorer.refreshCharts(view);
      return view.dataset.view === "clusters" ? window.explorer.showCluster(detail) : null;
    }).then(() => {
      document.body.dataset.ready = view.dataset.view;
    }).catch((error) => {
      trouble.textContent = error.message;
      trouble.hidden = false;
    });
  }

  function label() {
    button.textContent = window.explorerTheme.isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", "Switch to " + (window.explorerTheme.isDark() ? "light" : "dark") + " colours");
  }

  button.addEventListener("click", window.explorerTheme.toggle);
  document.addEventListener("explorer-theme", label);
  window.addEventListener("hashchange", () => { route(); window.scrollTo(0, 0); });
  label();
  route();
})();
