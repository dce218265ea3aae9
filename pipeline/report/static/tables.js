// Tables that sort, search and turn pages. Cells become text nodes or elements, never markup.
(function () {
  "use strict";
  const { element, shown, picture } = window.explorer;
  const numeric = new Set(["count", "real", "percent"]);

  // DataTables decodes entities of what it searches through a detached element: escape first.
  function escaped(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
  }

  function cell(value, kind) {
    if (kind === "link") {
      return element("a", { href: value[1] }, value[0]);
    }
    if (kind === "pictures") {
      return element("div", { class: "strip" }, ...value.map(picture));
    }
    return element("span", {}, shown(value, kind));
  }

  function column(about) {
    return {
      title: about.title,
      type: numeric.has(about.kind) ? "num" : "string",
      className: numeric.has(about.kind) ? "number" : "words",
      visible: about.kind !== "searched",
      searchable: !numeric.has(about.kind) && about.kind !== "pictures",
      orderable: about.kind !== "pictures",
      render: (value, type) => {
        if (type === "display") {
          return cell(value, about.kind);
        }
        const bare = about.kind === "link" ? value[0] : value;
        if (numeric.has(about.kind)) {
          return bare === null ? -Infinity : bare;
        }
        return about.kind === "pictures" ? "" : escaped(String(bare === null ? "" : bare));
      },
    };
  }

  function choice(table, rows, index, title) {
    const values = [...new Set(rows.map((row) => row[index]))].filter((v) => v !== null).sort();
    const menu = element("select", {}, element("option", { value: "" }, "all"));
    values.forEach((value, i) => menu.append(element("option", { value: String(i + 1) }, String(value))));
    menu.addEventListener("change", () => {
      const wanted = values[Number(menu.value) - 1];
      table.column(index).search.fixed("choice", menu.value ? (text) => text === String(wanted) : null).draw();
    });
    return element("label", { class: "choice" }, title + " ", menu);
  }

  function table(place, data) {
    const title = place.dataset.title || "Table";
    const node = element("table", { class: "stripe compact", "aria-label": title });
    const scroller = element("div", { class: "scroller", role: "region", tabindex: "0", "aria-label": title + ", scrollable" });
    const made = new DataTable(node, {
      data: data.rows,
      columns: data.columns.map(column),
      order: data.order ? [data.order] : [],
      pageLength: 15,
      lengthMenu: [15, 50, 200],
      deferRender: true,
      autoWidth: false,
      paging: data.rows.length > 15,
      searching: data.rows.length > 8 || data.columns.some((c) => c.choice),
      info: data.rows.length > 15,
      layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
      language: { search: "Search", emptyTable: "Nothing here", thousands: "," },
    });
    place.append(made.table().container());
    node.before(scroller);
    scroller.append(node);
    const pages = place.querySelector("nav");
    if (pages) {
      pages.setAttribute("aria-label", title + ", pages");
    }
    const menus = data.columns.flatMap((c, i) => (c.choice ? [choice(made, data.rows, i, c.title)] : []));
    if (menus.length) {
      place.prepend(element("div", { class: "choices" }, ...menus));
    }
    return made;
  }

  Object.assign(window.explorer, { table });
})();
