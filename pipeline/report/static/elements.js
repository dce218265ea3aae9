// Elements whose content is always set as text: labels and image ids may hold anything.
(function () {
  "use strict";
  const counts = new Intl.NumberFormat("en");
  const reals = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      made.setAttribute(key, value);
    }
    made.append(...children); // strings become text nodes
    return made;
  }

  function shown(value, kind) {
    if (value === null || value === undefined) {
      return "";
    }
    if (kind === "count") {
      return counts.format(value);
    }
    if (kind === "real") {
      return reals.format(value);
    }
    if (kind === "percent") {
      return reals.format(100 * value) + " %";
    }
    return String(value);
  }

  // A picture with its caption; where there is no file, its id stands in its place.
  function picture(data) {
    const frame = element("figure", { class: "picture " + data.mark });
    if (data.file) {
      const [pack, place] = data.file.split("/");
      const image = element("img", { alt: "image " + data.id, decoding: "async", title: data.id });
      frame.append(image);
      window.explorer.load("pictures-" + pack).then((pictures) => {
        image.src = "data:image/webp;base64," + pictures[Number(place)];
      }, () => image.replaceWith(element("span", { class: "absent" }, data.id)));
    } else {
      frame.append(element("span", { class: "absent" }, data.id));
    }
    const words = [data.mark, data.caption].filter(Boolean).join(": ");
    if (words) {
      frame.append(element("figcaption", {}, words));
    }
    return frame;
  }

  Object.assign(window.explorer, { element, shown, picture });
})();
