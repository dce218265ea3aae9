// Charts: options come from the data, colours from the theme; drawn again when it changes.
(function () {
  "use strict";
  const drawn = new Map();
  const palettes = {
    light: { ink: "#1f2933", soft: "#52606d", line: "#d5dbe1", paper: "#ffffff",
             color: ["#0b7285", "#c2410c", "#5f3dc4", "#2b8a3e", "#a61e4d"] },
    dark: { ink: "#e6edf3", soft: "#a9b4c0", line: "#3a4553", paper: "#161c23",
            color: ["#3bc9db", "#ffa94d", "#b197fc", "#69db7c", "#faa2c1"] },
  };

  function themeOf(palette) {
    const axis = {
      axisLine: { lineStyle: { color: palette.soft } },
      axisLabel: { color: palette.soft },
      nameTextStyle: { color: palette.soft },
      splitLine: { lineStyle: { color: palette.line } },
      minorSplitLine: { show: false },
    };
    return {
      color: palette.color,
      backgroundColor: "transparent",
      textStyle: { color: palette.ink },
      legend: { textStyle: { color: palette.ink } },
      categoryAxis: { ...axis, splitLine: { show: false } },
      valueAxis: axis,
      logAxis: axis,
      bar: { label: { color: palette.ink } },
      tooltip: { backgroundColor: palette.paper, borderColor: palette.line, textStyle: { color: palette.ink } },
      markPoint: {},
    };
  }

  // What depends on the theme and cannot stand in an ECharts theme.
  function coloured(option, palette) {
    const series = option.series.map((one) => one.markLine
      ? { ...one, markLine: { ...one.markLine, lineStyle: { color: palette.color[1] },
                              label: { ...one.markLine.label, color: palette.ink } } }
      : one);
    // Text on the canvas only: a tip never becomes markup.
    const tooltip = { ...option.tooltip, renderMode: "richText", confine: true };
    const aria = { enabled: true, label: { description: option.label } };
    return { ...option, series, tooltip, aria, animation: false };
  }

  function draw(place) {
    const { data, chart } = drawn.get(place);
    if (chart) {
      chart.dispose();
    }
    const palette = palettes[window.explorerTheme.isDark() ? "dark" : "light"];
    const made = echarts.init(place, themeOf(palette));
    made.setOption(coloured({ ...data.option, label: data.label }, palette));
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", data.label);
    drawn.set(place, { data, chart: made });
  }

  function chart(place, data) {
    place.style.height = data.height + "px";
    drawn.set(place, { data, chart: null });
    draw(place);
  }

  document.addEventListener("explorer-theme", () => [...drawn.keys()].forEach((place) => {
    if (place.offsetParent) {
      draw(place);
    } else {
      drawn.get(place).isStale = true;
    }
  }));
  window.addEventListener("resize", () => drawn.forEach((one, place) => {
    if (place.offsetParent && one.chart) {
      one.chart.resize();
    }
  }));

  // A view is seen again: its charts may have another theme or width.
  function refresh(view) {
    drawn.forEach((one, place) => {
      if (view.contains(place)) {
        one.isStale ? draw(place) : one.chart.resize();
      }
    });
  }

  Object.assign(window.explorer, { chart, refreshCharts: refresh });
})();
