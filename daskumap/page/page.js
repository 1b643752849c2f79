"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const canvas = byId("map"), pen = canvas.getContext("2d"), tip = byId("tip"), said = byId("said");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const numbers = (kind, text) => new kind(bytes(text).buffer);
  const say = (text) => { said.textContent = text; };

  const imagesOf = (sources) => Object.fromEntries(["light", "dark"].map((theme) => {
    const image = new Image();
    image.onload = () => draw();
    image.src = sources[theme];
    return [theme, image];
  }));

  // A run as it is drawn: places and numbers of its sampled rows, and its raster.
  const runs = data.runs.map((run) => {
    const places = numbers(Float32Array, run.places);
    return { ...run, places, rows: numbers(Float64Array, run.rows), rasters: imagesOf(run.raster), grid: null,
      columns: run.columns.map((column) => ({ ...column, codes: column.codes && numbers(Int16Array, column.codes),
        rasters: column.raster && imagesOf(column.raster) })) };
  });
  let run = runs[0], column = null, hidden = new Set(), chosen = new Set(), marked = -1;
  let view = { x: 0, y: 0, scale: 1 }, fitted = 1, lasso = null, selecting = false;
  const page = { drawn: 0, runs: runs.length };
  window.daskumapPage = page;

  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const toScreen = (x, y) => { const [w, h] = size(); return [w / 2 + (x - view.x) * view.scale, h / 2 - (y - view.y) * view.scale]; };
  const toMap = (px, py) => { const [w, h] = size(); return [view.x + (px - w / 2) / view.scale, view.y - (py - h / 2) / view.scale]; };

  function whole() {
    const [[left, right], [low, high]] = run.limits, [w, h] = size();
    fitted = Math.min(w / (right - left), h / (high - low));
    view = { x: (left + right) / 2, y: (low + high) / 2, scale: fitted };
    draw();
  }

  function colourOf(i) {
    if (!column) return dark.matches ? "rgb(246,116,94)" : "rgb(110,38,150)";
    const code = column.codes[i], palette = column.palette[dark.matches ? "dark" : "light"];
    return code < 0 ? (dark.matches ? "rgb(105,108,120)" : "rgb(190,192,200)") : palette[code];
  }

  function draw() {
    const [w, h] = size(), ratio = devicePixelRatio || 1;
    if (!w) return;
    if (canvas.width !== Math.round(w * ratio)) { canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    const zoom = view.scale / fitted, near = Math.min(1, Math.max(0, (zoom - 1.5) / 2.5));
    // All rows from afar, the sampled ones near by; of a column without a picture of all rows the sample alone.
    const pictured = !column || (column.rasters && !hidden.size);
    drawRaster(pictured ? 1 - .85 * near : .25 * (1 - near));
    drawPoints(pictured ? near : 1, zoom);
    drawLasso();
  }

  function drawRaster(strength) {
    const image = ((column && !hidden.size && column.rasters) || run.rasters)[dark.matches ? "dark" : "light"];
    if (!image.complete || !image.naturalWidth || strength <= 0) return;
    const [[left, right], [low, high]] = run.limits, [x0, y0] = toScreen(left, high), [x1, y1] = toScreen(right, low);
    pen.globalAlpha = strength;
    pen.drawImage(image, x0, y0, x1 - x0, y1 - y0);
    pen.globalAlpha = 1;
  }

  function drawPoints(strength, zoom) {
    const [w, h] = size(), n = run.rows.length;
    const radius = Math.min(6, Math.max(1, .35 * Math.sqrt(w * h / n)) * Math.sqrt(zoom));
    page.drawn = 0;
    if (strength > 0) {
      pen.globalAlpha = .85 * strength;
      for (let i = 0; i < n; i++) {
        if (column && hidden.has(column.codes[i])) continue;
        const [x, y] = toScreen(run.places[2 * i], run.places[2 * i + 1]);
        if (x < -9 || y < -9 || x > w + 9 || y > h + 9) continue;
        pen.fillStyle = colourOf(i);
        pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fill();
        page.drawn++;
      }
      pen.globalAlpha = 1;
    }
    pen.strokeStyle = getComputedStyle(document.body).color;
    for (const i of marked >= 0 ? [...chosen, marked] : chosen) {
      const [x, y] = toScreen(run.places[2 * i], run.places[2 * i + 1]);
      pen.lineWidth = i === marked ? 3 : 1;
      pen.beginPath(); pen.arc(x, y, radius + (i === marked ? 5 : 1), 0, 7); pen.stroke();
    }
  }

  function drawLasso() {
    if (!lasso || lasso.length < 2) return;
    pen.strokeStyle = getComputedStyle(document.body).color; pen.lineWidth = 1.5; pen.setLineDash([5, 4]);
    pen.beginPath(); lasso.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.closePath(); pen.stroke();
    pen.setLineDash([]);
  }

  // The sampled rows by cells of the map, so that the one under the pointer is found at once.
  function gridOf() {
    if (run.grid) return run.grid;
    const [[left, right], [low, high]] = run.limits, cells = new Map(), step = Math.max(right - left, high - low) / 64;
    for (let i = 0; i < run.rows.length; i++) {
      const key = Math.floor(run.places[2 * i] / step) + ":" + Math.floor(run.places[2 * i + 1] / step);
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(i);
    }
    return (run.grid = { cells, step });
  }

  function nearest(px, py) {
    const [x, y] = toMap(px, py), { cells, step } = gridOf(), reach = 12 / view.scale;
    let best = -1, least = reach * reach;
    for (let a = Math.floor((x - reach) / step); a <= Math.floor((x + reach) / step); a++)
      for (let b = Math.floor((y - reach) / step); b <= Math.floor((y + reach) / step); b++)
        for (const i of cells.get(a + ":" + b) || []) {
          if (column && hidden.has(column.codes[i])) continue;
          const d = (run.places[2 * i] - x) ** 2 + (run.places[2 * i + 1] - y) ** 2;
          if (d < least) { least = d; best = i; }
        }
    return best;
  }

  const textOf = (c, i) => c.texts ? (c.texts[i] ?? "none") : c.codes[i] < 0 ? "none" : c.values ? c.values[i] : c.names[c.codes[i]];
  const describe = (i) => ["row " + run.rows[i], ...run.columns.map((c) => c.name + ": " + textOf(c, i))].join("\n");

  function showTip(px, py) {
    const i = nearest(px, py);
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.textContent = describe(i);
    tip.style.left = Math.min(px + 12, Math.max(0, size()[0] - 180)) + "px";
    tip.style.top = (py + 12) + "px";
  }

  function zoomAt(px, py, factor) {
    const [x, y] = toMap(px, py);
    view.scale = Math.min(fitted * 400, Math.max(fitted * .5, view.scale * factor));
    const [nx, ny] = toMap(px, py);
    view.x += x - nx; view.y += y - ny;
    draw();
  }

  const pointers = new Map();
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(...at(event), Math.exp(-event.deltaY / 400)); }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomAt(...at(event), 2));
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    if (selecting) lasso = [at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event), before = pointers.get(event.pointerId);
    if (!before) return showTip(...now);
    tip.hidden = true;
    if (lasso) { lasso.push(now); return draw(); }
    if (pointers.size === 1) { view.x -= (now[0] - before[0]) / view.scale; view.y += (now[1] - before[1]) / view.scale; }
    else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, apart(now) / Math.max(1, apart(before)));
    }
    pointers.set(event.pointerId, now);
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => {
    pointers.delete(event.pointerId);
    if (lasso) { choose(lasso); lasso = null; draw(); }
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("keydown", (event) => {
    const [w, h] = size(), step = 60 / view.scale;
    const keys = { ArrowLeft: () => { view.x -= step; }, ArrowRight: () => { view.x += step; }, ArrowUp: () => { view.y += step; },
      ArrowDown: () => { view.y -= step; }, "+": () => zoomAt(w / 2, h / 2, 1.4), "=": () => zoomAt(w / 2, h / 2, 1.4),
      "-": () => zoomAt(w / 2, h / 2, 1 / 1.4), "0": whole };
    if (!keys[event.key]) return;
    event.preventDefault(); keys[event.key](); draw();
  });

  function choose(polygon) {
    chosen = new Set();
    for (let i = 0; i < run.rows.length; i++) {
      if (column && hidden.has(column.codes[i])) continue;
      const [x, y] = toScreen(run.places[2 * i], run.places[2 * i + 1]);
      if (inside(x, y, polygon)) chosen.add(i);
    }
    byId("copy").disabled = !chosen.size;
    say(chosen.size ? chosen.size + " of the sampled rows are selected." : "No sampled row lies in there.");
  }

  function inside(x, y, polygon) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [ax, ay] = polygon[i], [bx, by] = polygon[j];
      if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  }

  byId("lasso").addEventListener("click", (event) => {
    selecting = !selecting;
    event.target.setAttribute("aria-pressed", selecting);
    canvas.classList.toggle("lasso", selecting);
    say(selecting ? "Draw around the rows to select." : "");
  });
  byId("copy").addEventListener("click", async () => {
    const text = [...chosen].map((i) => run.rows[i]).join("\n");
    page.copied = text;
    try { await navigator.clipboard.writeText(text); say(chosen.size + " row numbers are in the clipboard."); }
    catch { const area = document.createElement("textarea"); area.value = text; area.setAttribute("aria-label", "Selected rows");
      said.replaceChildren("Copy these: ", area); area.select(); }
  });
  byId("whole").addEventListener("click", whole);
  const search = () => {
    const wanted = byId("search").value.trim();
    if (!wanted) return;
    let found = run.rows.indexOf(Number(wanted));
    for (const c of found < 0 ? run.columns.filter((c) => c.texts) : []) if (found < 0) found = c.texts.indexOf(wanted);
    marked = found;
    if (found < 0) say(wanted + " is not among the " + run.rows.length.toLocaleString("en") + " sampled rows.");
    else {
      view = { x: run.places[2 * found], y: run.places[2 * found + 1], scale: Math.max(view.scale, fitted * 4) };
      say(describe(found).replaceAll("\n", ", "));
    }
    draw();
  };
  byId("find").addEventListener("click", search);
  byId("search").addEventListener("keydown", (event) => { if (event.key === "Enter") search(); });

  function legend() {
    const list = byId("legend");
    list.replaceChildren();
    if (!column) return;
    if (column.span) {
      const item = document.createElement("li"), ramp = document.createElement("div");
      const palette = column.palette.light;
      ramp.className = "ramp"; ramp.style.background = "linear-gradient(to right," + palette.filter((_, i) => i % 16 === 0).join(",") + ")";
      item.append(column.span[0].toPrecision(4), ramp, column.span[1].toPrecision(4));
      item.style.cssText = "display:flex;gap:.5rem;align-items:center";
      return list.append(item);
    }
    column.names.forEach((name, code) => {
      const item = document.createElement("li"), button = document.createElement("button"), swatch = document.createElement("span");
      swatch.className = "swatch"; swatch.style.background = column.palette[dark.matches ? "dark" : "light"][code];
      button.type = "button"; button.setAttribute("aria-pressed", !hidden.has(code));
      button.append(swatch, name + " (" + column.counts[code].toLocaleString("en") + ")");
      button.addEventListener("click", () => { hidden.has(code) ? hidden.delete(code) : hidden.add(code); legend(); draw(); });
      item.append(button); list.append(item);
    });
  }

  function pickRun(number) {
    run = runs[number]; chosen = new Set(); marked = -1; hidden = new Set();
    const colours = run.columns.filter((c) => c.codes);
    byId("colour").replaceChildren(new Option("density", "-1"), ...colours.map((c, i) => new Option(c.name, i)));
    column = colours.length && run.coloured ? colours[0] : null;
    byId("colour").value = column ? "0" : "-1";
    byId("copy").disabled = true;
    legend(); whole();
  }
  runs.forEach((one, i) => byId("run").append(new Option(one.name, i)));
  byId("run").parentElement.hidden = runs.length < 2;
  byId("run").addEventListener("change", (event) => pickRun(Number(event.target.value)));
  byId("colour").addEventListener("change", (event) => {
    column = run.columns.filter((c) => c.codes)[Number(event.target.value)] || null;
    hidden = new Set(); legend(); draw();
  });
  dark.addEventListener("change", () => { legend(); draw(); });
  new ResizeObserver(() => whole()).observe(canvas);
  pickRun(0);
})();
