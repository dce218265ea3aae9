// The cluster browser: a table of all clusters, and one cluster in full at #clusters/<id>.
(function () {
  "use strict";
  const { element, shown, picture, table, load } = window.explorer;
  let about = null;
  let list = null;
  let detail = null;

  function clusters(place, data) {
    about = data;
    list = element("div", {});
    list.dataset.title = "Clusters";
    detail = element("div", { class: "detail", "aria-live": "polite" });
    place.append(detail, list);
    table(list, data);
  }

  function facts(pairs) {
    return element("dl", {}, ...pairs.filter((pair) => pair[1] !== "").map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }

  function part(title, ...content) {
    return content.length ? [element("h4", {}, title), ...content] : [];
  }

  function neighbour([id, name, interest, cosine]) {
    return element("li", {}, element("a", { href: "#clusters/" + id }, name), " " + interest + ", cosine " + shown(cosine, "real"));
  }

  function draw(id, one) {
    const heading = element("h3", { tabindex: "-1" }, one.name);
    const members = element("div", {});
    members.dataset.title = "Members of " + one.name;
    const neighbours = one.neighbours.length ? [element("ul", {}, ...one.neighbours.map(neighbour))] : [];
    const pictures = one.pictures.length ? [element("div", { class: "strip" }, ...one.pictures.map(picture))] : [];
    detail.replaceChildren(element("section", { class: "group", "aria-label": "Cluster " + one.name },
      element("p", {}, element("a", { href: "#clusters" }, "All clusters")),
      heading,
      facts([["interest", one.interest], ["cluster", id], ["label", shown(one.label, "count") || "none: " + one.reason],
             ["medoid", one.medoid], ["terms", shown(one.members.length, "count")], ["inertia", shown(one.inertia, "real")],
             ["images", shown(one.before, "count")], ["after resampling", shown(one.after, "count")]]),
      ...part("Example images", ...pictures),
      ...part("Members", members),
      ...part("Nearest clusters", ...neighbours)));
    table(members, { columns: about.memberColumns, rows: one.members, order: null });
    heading.focus();
  }

  function show(id) {
    if (id === "") {
      detail.replaceChildren();
      list.hidden = false;
      return Promise.resolve();
    }
    list.hidden = true;
    const number = Number(id);
    if (!(Number.isInteger(number) && number >= 0 && number < about.rows.length)) {
      detail.replaceChildren(element("p", {}, "There is no cluster " + id + ". ", element("a", { href: "#clusters" }, "All clusters")));
      return Promise.resolve();
    }
    return load("clusters-" + Math.floor(number / about.perPart)).then((found) => draw(id, found[id]));
  }

  Object.assign(window.explorer, { clusters, showCluster: show });
})();
