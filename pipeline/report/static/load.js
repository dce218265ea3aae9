// Data files are scripts that call explorer.take(name, value): a page from a file may load nothing else.
(function () {
  "use strict";
  const taken = new Map();
  const asked = new Map();

  function take(name, value) {
    taken.set(name, value);
  }

  function load(name) {
    if (!asked.has(name)) {
      asked.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = "data/" + encodeURIComponent(name) + ".js";
        script.onload = () => resolve(taken.get(name));
        script.onerror = () => {
          asked.delete(name);
          reject(new Error("data/" + name + ".js could not be loaded; was the whole folder copied?"));
        };
        document.head.append(script);
      }));
    }
    return asked.get(name);
  }

  window.explorer = { take, load };
})();
