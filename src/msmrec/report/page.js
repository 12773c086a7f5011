// Draws each figure with BokehJS when it comes near the window, in the colours of the page, and again when these change.
"use strict";
(() => {
  const MARKERS = ["circle", "diamond", "square", "triangle", "inverted_triangle", "plus", "star", "hex"];
  const DASHES = ["solid", "dashed", "dotted", "dotdash", "dashdot", [8, 2], [2, 6], [12, 4, 2, 4]];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const specs = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const short = (v) => typeof v !== "number" ? v : Math.abs(v) >= 1000 || Number.isInteger(v) ? v.toLocaleString("en") : +v.toPrecision(4);

  function range(axis, low, high) {
    if (axis.labels) return new Bokeh.Range1d({ start: axis.labels.length - 0.5, end: -0.5 });
    if (axis.columns) return new Bokeh.Range1d({ start: -0.5, end: axis.columns.length - 0.5 });
    if (axis.range) return new Bokeh.Range1d({ start: axis.range[0], end: axis.range[1] });
    return new Bokeh.DataRange1d({ ...(axis.zero ? { start: 0 } : {}), range_padding: 0.06 });
  }

  function dress(axes, axis, horizontal, narrow, element) {
    for (const a of axes) {
      a.axis_label = axis.title;
      a.axis_label_text_font_style = "normal";
      a.axis_label_standoff = 6;
      for (const part of ["axis_label", "major_label"]) {
        a[part + "_text_color"] = colour(part === "axis_label" ? "soft" : "text");
        a[part + "_text_font_size"] = narrow ? "11px" : "12.5px";
        a[part + "_text_font"] = getComputedStyle(document.body).fontFamily;
      }
      a.axis_line_color = a.major_tick_line_color = colour("line");
      a.minor_tick_line_color = null;
      a.major_tick_in = 0;
      const names = axis.labels ?? axis.columns;
      if (names) {
        const limit = axis.labels && narrow ? (element.clientWidth < 400 ? 18 : 24) : 60;
        const cut = (name) => name.length > limit ? name.slice(0, limit - 1).trimEnd() + "…" : name;
        a.ticker = new Bokeh.FixedTicker({ ticks: names.map((_, k) => k) });
        a.major_label_overrides = new Map(names.map((name, k) => [k, cut(name)]));
        if (axis.columns && narrow) a.major_label_orientation = Math.PI / 3;
      } else if (axis.ticks) {
        a.ticker = new Bokeh.FixedTicker({ ticks: axis.ticks });
        a.major_label_overrides = new Map(axis.ticks.map((t) => [t, String(t)]));
      } else if (axis.percent) a.formatter = new Bokeh.NumeralTickFormatter({ format: "0%" });
      else if (axis.time) a.ticker = new Bokeh.DatetimeTicker({ desired_num_ticks: 4 });
      else {
        if (axis.type !== "log") a.ticker = new Bokeh.BasicTicker({ desired_num_ticks: horizontal ? (narrow ? 4 : 7) : 5 });
        a.formatter = new Bokeh.CustomJSTickFormatter({ code: "return Math.abs(tick) >= 1000 ? tick.toLocaleString('en') : String(+tick.toPrecision(6))" });
      }
      if (axis.hidden) a.visible = false;
    }
  }

  const columns = (m, more) => new Bokeh.ColumnDataSource({ data: { ...Object.fromEntries(Object.entries(m).filter(([, part]) => Array.isArray(part))), ...more } });

  const draws = {
    line(p, m, style) {
      const data = { x: m.x, y: m.y, hover: m.x.map((x, i) => `${m.name ? m.name + "\n" : ""}${short(m.y[i])} at ${short(x)}`) };
      const source = new Bokeh.ColumnDataSource({ data });
      const made = [p.line({ field: "x" }, { field: "y" }, { source, line_color: style.colour, line_width: 2, line_dash: style.dash })];
      const size = m.markers && m.x.length <= 60 ? 6 : 0;
      made.push(p.scatter({ field: "x" }, { field: "y" }, { source, marker: style.marker, size: size || 9, fill_color: style.colour, line_color: null, alpha: size ? 1 : 0 }));
      return { made, hover: [made[1]] };
    },
    band: (p, m, style) => ({ made: [p.varea({ x: m.x, y1: m.low, y2: m.high, fill_color: style.colour, fill_alpha: 0.2 })], hover: [] }),
    points(p, m, style) {
      const source = new Bokeh.ColumnDataSource({ data: { x: m.x, y: m.y, hover: m.hover } });
      const made = p.scatter({ field: "x" }, { field: "y" }, { source, marker: style.marker, size: m.size, fill_color: style.colour, line_color: null, fill_alpha: m.alpha });
      return { made: [made], hover: [made] };
    },
    intervals(p, m, style) {
      const source = columns(m);
      const ends = m.upright ? ["x", "low", "x", "high"] : ["low", "y", "high", "y"];
      const lines = p.segment(...ends.map((field) => ({ field })), { source, line_color: style.colour, line_width: 2 });
      const made = p.scatter({ field: "x" }, { field: "y" }, { source, marker: style.marker, size: 9, fill_color: style.colour, line_color: null });
      return { made: [lines, made], hover: [made] };
    },
    bars(p, m, style) {
      const source = columns(m, { bottom: m.left.map(() => 0) });
      const made = p.quad({ field: "left" }, { field: "right" }, { field: "bottom" }, { field: "top" }, { source, fill_color: style.colour, fill_alpha: m.alpha ?? 0.75, line_color: colour("back"), line_width: 0.5 });
      return { made: [made], hover: [made] };
    },
    cells(p, m) {
      const low = 0, high = Math.max(0, ...m.value);
      const mapper = new Bokeh.LinearColorMapper({ palette: shades(), low, high });
      const source = columns(m, { ink: m.value.map((v) => colour(v > low + 0.55 * (high - low) ? "back" : "text")) });
      const made = p.rect({ field: "x" }, { field: "y" }, 1, 1, { source, fill_color: { field: "value", transform: mapper }, line_color: colour("back"), line_width: 1 });
      p.text({ field: "x" }, { field: "y" }, { field: "label" }, { source, text_color: { field: "ink" }, text_align: "center", text_baseline: "middle", text_font_size: "11px" });
      return { made: [made], hover: [made] };
    },
    rule(p, m) {
      p.add_layout(new Bokeh.Span({ location: m.at, dimension: "height", line_color: colour("soft"), line_dash: [4, 4], line_width: 1.2 }));
      return { made: [], hover: [] };
    },
  };

  function shades() {
    const read = (name) => colour(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
    const [a, b] = [read("low"), read("high")];
    const mix = (t) => "#" + a.map((v, k) => Math.round(v + t * (b[k] - v)).toString(16).padStart(2, "0")).join("");
    return Array.from({ length: 64 }, (_, k) => mix(k / 63));
  }

  function marksOf(element, spec) {
    if (!spec.choices) return spec.marks;
    const [first, second] = element.closest(".row").querySelectorAll("select");
    return spec.choices[first.value][second.value];
  }

  async function draw(element) {
    const spec = specs.get(element), narrow = element.clientWidth < 480;
    const p = Bokeh.Plotting.figure({
      height: spec.height, sizing_mode: "stretch_width", toolbar_location: null, tools: [], min_border_right: 14,
      x_axis_type: spec.x.time ? "datetime" : spec.x.type ?? "linear", y_axis_type: spec.y.type ?? "linear",
      x_range: range(spec.x), y_range: range(spec.y), background_fill_color: null, border_fill_color: null, outline_line_color: null,
    });
    dress(p.xaxes, spec.x, true, narrow, element);
    dress(p.yaxes, spec.y, false, narrow, element);
    for (const [grids, axes] of [[p.xgrids, p.xaxes], [p.ygrids, p.yaxes]])
      grids.forEach((grid, k) => { grid.grid_line_color = colour("grid"); grid.ticker = axes[k].ticker; });
    if (spec.x.columns || spec.x.hidden) for (const grid of [...p.xgrids, ...p.ygrids]) grid.visible = false;
    const items = [], hovered = [];
    for (const mark of marksOf(element, spec)) {
      const m = typeof mark.hover === "string" ? { ...mark, hover: spec.shared[mark.hover.slice(1)] } : mark;
      const k = (m.series ?? 0) % MARKERS.length;
      const { made, hover } = draws[m.kind](p, m, { colour: colour(m.series === -1 ? "pale" : "s" + k), marker: MARKERS[k < 0 ? 0 : k], dash: m.name ? DASHES[k < 0 ? 0 : k] : "solid" });
      if (m.name) items.push(new Bokeh.LegendItem({ label: { value: m.name }, renderers: made }));
      hovered.push(...hover);
    }
    if (items.length > 1) {
      const longest = Math.max(...items.map((item) => item.label.value.length)) * 7 + 46;
      const ncols = Math.max(1, Math.min(items.length, Math.floor((element.clientWidth - 60) / longest)));
      p.add_layout(new Bokeh.Legend({ items, orientation: "horizontal", ncols, background_fill_color: null, border_line_color: null, margin: 0, padding: 4, spacing: 12,
        label_text_color: colour("text"), label_text_font_size: narrow ? "11px" : "12.5px", label_text_font: getComputedStyle(document.body).fontFamily }), "above");
      p.height = spec.height + 26 * (Math.ceil(items.length / ncols) - 1);
    }
    if (hovered.length) p.add_tools(new Bokeh.HoverTool({ renderers: hovered, tooltips: '<div style="white-space: pre-line; max-width: 22rem">@hover</div>' }));
    if (spec.x.hidden && !touch) p.add_tools(new Bokeh.BoxZoomTool({ match_aspect: true }), new Bokeh.ResetTool());
    element.replaceChildren();
    await Bokeh.Plotting.show(p, element);
    element.dataset.drawn = dark.matches ? "dark" : "light";
  }

  const elements = [...document.querySelectorAll("[data-figure]")];
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      if (isIntersecting) { near.unobserve(target); draw(target); }
  }, { rootMargin: "300px" });
  if (elements.length) Bokeh.set_log_level("warn");
  for (const element of elements) {
    specs.set(element, JSON.parse(element.querySelector("script").textContent));
    element.replaceChildren();
    near.observe(element);
  }
  for (const row of document.querySelectorAll(".row"))
    for (const select of row.querySelectorAll("select"))
      select.addEventListener("change", () => row.querySelectorAll("[data-figure]").forEach(draw));
  const drawAll = () => Promise.all(elements.filter((element) => !element.dataset.drawn).map(draw));
  dark.addEventListener("change", () => elements.filter((element) => element.dataset.drawn).forEach(draw));
  addEventListener("beforeprint", drawAll);
  window.drawAllFigures = drawAll;
  // On a narrow window the contents begin folded, so that the page begins with its numbers.
  if (matchMedia("(max-width: 40rem)").matches) document.querySelector("nav details").open = false;
})();
