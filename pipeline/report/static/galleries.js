// Groups of pictures, facts and plain text. Long galleries show more on demand.
(function () {
  "use strict";
  const { element, picture } = window.explorer;
  const PAGE = 12;

  function card(group) {
    const made = element("section", { class: "group" });
    made.append(element("h4", {}, group.title));
    if (group.text) {
      made.append(element("p", {}, group.text));
    }
    made.append(element("div", { class: "strip" }, ...group.pictures.map(picture)));
    return made;
  }

  function gallery(place, data) {
    const list = element("div", { class: "groups" });
    const more = element("button", { type: "button", class: "more" });
    let num = 0;
    function grow() {
      const next = data.groups.slice(num, num + PAGE);
      list.append(...next.map(card));
      num += next.length;
      more.hidden = num >= data.groups.length;
      more.textContent = "Show more (" + (data.groups.length - num) + " left)";
    }
    more.addEventListener("click", grow);
    grow();
    place.append(list, more);
    if (!data.groups.length) {
      place.append(element("p", {}, "Nothing here."));
    }
  }

  function facts(place, data) {
    const list = element("dl", {});
    for (const [name, value] of data.pairs) {
      list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    }
    place.append(list);
  }

  function text(place, data) {
    const title = place.dataset.title;
    place.append(element("pre", { tabindex: "0", role: "region", "aria-label": title }, data.content));
  }

  Object.assign(window.explorer, { gallery, facts, text });
})();
