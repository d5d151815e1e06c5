// Draws the charts of a handout in the colours of the reader's screen, and anew when those or an axis change.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [...document.querySelectorAll("script[data-chart]")].map((source) => ({
    place: document.getElementById(source.dataset.chart),
    content: JSON.parse(source.textContent),
    view: null,
  }));
  const powers = Array.from({ length: 16 }, (_, i) => 10 ** (i - 6));

  const theme = () => {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    const words = { labelColor: colour("ink"), titleColor: colour("ink"), titleFontWeight: "normal" };
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: "transparent" },
      axis: { ...words, gridColor: colour("faint"), gridOpacity: 0.5, domainColor: colour("faint"), tickColor: colour("faint") },
      legend: words,
    };
  };

  // What is not above zero has no place on a logarithmic axis; a band that reaches below ends a little under its mean.
  const logarithmic = (layer, channel) => {
    const encoding = layer.encoding[channel];
    if (!encoding || encoding.type !== "quantitative") return;
    const low = encoding.field === "low";
    const steps = low ? [{ calculate: "datum.low > 0 ? datum.low : datum.mean / 10", as: "low" }] : [];
    layer.transform = [...steps, ...(layer.transform ?? []), { filter: `datum['${encoding.field}'] > 0` }];
    if (encoding.scale) encoding.scale = { type: "log", nice: false };
    if (encoding.axis && channel === "x") encoding.axis = { ...encoding.axis, values: powers, labelExpr: document.body.dataset.power };
  };

  const narrowed = (layer, width) => {
    for (const encoding of Object.values(layer.encoding)) {
      if (encoding?.legend) {
        Object.assign(encoding.legend, { columns: Math.max(1, Math.floor(width / 140)), titleOrient: "top", labelLimit: width - 60 });
      }
    }
  };

  const draw = async (chart) => {
    const spec = structuredClone(chart.content[dark.matches ? "dark" : "light"]);
    const width = chart.place.clientWidth;
    for (const layer of spec.layer) {
      if (chart.place.id.startsWith("curves")) {
        if (document.getElementById("log-x").checked) logarithmic(layer, "x");
        if (document.getElementById("log-y").checked) logarithmic(layer, "y");
      }
      if (width < 600) narrowed(layer, width);
    }
    const options = { renderer: "svg", config: theme(), actions: false };
    // The menu of pictures takes a margin of its own, which a phone has not got.
    if (width >= 600) options.actions = { export: true, source: false, compiled: false, editor: false };
    const drawn = { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" }, datasets: chart.content.datasets };
    const earlier = chart.view;
    chart.view = await vegaEmbed(chart.place, drawn, options);
    earlier?.finalize();
  };

  const drawAll = () => charts.forEach(draw);
  for (const box of document.querySelectorAll(".switches input")) box.addEventListener("change", drawAll);
  dark.addEventListener("change", drawAll);
  drawAll();
})();
