// Draws the charts of an exported page in the light or dark theme; redraws when the theme or an axis switch changes.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [...document.querySelectorAll("script[data-chart]")].map((source) => ({
    element: document.getElementById(source.dataset.chart),
    content: JSON.parse(source.textContent),
    view: null,
  }));
  const powers = Array.from({ length: 16 }, (_, i) => 10 ** (i - 6));

  const theme = () => {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    const text = { labelColor: colour("ink"), titleColor: colour("ink"), titleFontWeight: "normal" };
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: "transparent" },
      axis: { ...text, gridColor: colour("faint"), gridOpacity: 0.5, domainColor: colour("faint"), tickColor: colour("faint") },
      legend: text,
    };
  };

  // A logarithmic axis cannot show values that are not positive: they are left out; a band ends a decade below the median.
  const makeLogarithmic = (layer, channel) => {
    const encoding = layer.encoding[channel];
    if (!encoding || encoding.type !== "quantitative") return;
    const low = encoding.field === "low";
    const transforms = low ? [{ calculate: "datum.low > 0 ? datum.low : datum.median / 10", as: "low" }] : [];
    layer.transform = [...transforms, ...(layer.transform ?? []), { filter: `datum['${encoding.field}'] > 0` }];
    if (encoding.scale) encoding.scale = { type: "log", nice: false };
    if (encoding.axis && channel === "x") encoding.axis = { ...encoding.axis, values: powers, labelExpr: document.body.dataset.powerLabel };
  };

  const fitLegend = (layer, width) => {
    for (const encoding of Object.values(layer.encoding)) {
      if (encoding?.legend) {
        Object.assign(encoding.legend, { columns: Math.max(1, Math.floor(width / 140)), titleOrient: "top", labelLimit: width - 60 });
      }
    }
  };

  const draw = async (chart) => {
    const spec = structuredClone(chart.content[dark.matches ? "dark" : "light"]);
    const width = chart.element.clientWidth;
    for (const layer of spec.layer) {
      if (chart.element.id.startsWith("curves")) {
        if (document.getElementById("log-x").checked) makeLogarithmic(layer, "x");
        if (document.getElementById("log-y").checked) makeLogarithmic(layer, "y");
      }
      if (width < 600) fitLegend(layer, width);
    }
    const options = { renderer: "svg", config: theme(), actions: false };
    // The menu for saving images needs a margin, for which a phone has no room.
    if (width >= 600) options.actions = { export: true, source: false, compiled: false, editor: false };
    const complete = { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" }, datasets: chart.content.datasets };
    const previous = chart.view;
    chart.view = await vegaEmbed(chart.element, complete, options);
    previous?.finalize();
  };

  const drawAll = () => charts.forEach(draw);
  for (const box of document.querySelectorAll(".switches input")) box.addEventListener("change", drawAll);
  dark.addEventListener("change", drawAll);
  drawAll();
})();
