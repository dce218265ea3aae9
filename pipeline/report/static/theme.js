// Light or dark, before anything is drawn: what the reader chose here, else what the system says.
(function () {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return window.localStorage.getItem("explorer-theme");
    } catch (error) {
      return null; // storage may be forbidden for files
    }
  }

  function apply(isDark) {
    root.classList.toggle("dark", isDark);
    root.classList.toggle("light", !isDark);
  }

  function isDark() {
    return root.classList.contains("dark");
  }

  function toggle() {
    apply(!isDark());
    try {
      window.localStorage.setItem("explorer-theme", isDark() ? "dark" : "light");
    } catch (error) {
      // it lasts as long as the page
    }
    document.dispatchEvent(new CustomEvent("explorer-theme"));
  }

  const said = chosen();
  apply(said ? said === "dark" : system.matches);
  system.addEventListener("change", (event) => {
    if (!chosen()) {
      apply(event.matches);
      document.dispatchEvent(new CustomEvent("explorer-theme"));
    }
  });
  window.explorerTheme = { isDark, toggle };
})();
