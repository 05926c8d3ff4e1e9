/* The explorer: every test image on its path through a model, to choose, to filter and to compare. It draws what
 * plots/explorer.py packs, where probabilities are in 255ths. What is chosen stands in the page's address; of several
 * explorers on a page all but the first say there which one they are. */
(() => {
  "use strict";

  const MARKS = { correct: "✓", "read-out": "A", L: "L", C: "C", V: "V", never: "∅", unparsed: "?" };
  const MODULES = { V: "vision tower", C: "connector", L: "LLM" };
  const SORTS = { name: "name", decision: "nearest to the decision", drop: "largest drop of the true class" };
  const FILTERS = ["fate", "class", "all", "changed", "from", "to", "change"];
  const DUE = ["model", "dataset", "stage", "run"];
  const KEYS = [...DUE, ...FILTERS, "sort", "series", "image"];
  const [MEAN, LENS, ANSWER] = ["image_mean", "lens", "answer"];
  const [FULL, MOST] = [255, 200]; // a probability of 1; tiles at first
  const DASHES = ["7 3", "2 3", "9 3 2 3"];
  const percent = (p) => `${Math.round((100 * p) / FULL)} %`;

  /* An element with attributes (on…: a listener; null, undefined and false: not there) and children. */
  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if ((value ?? false) !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(2).filter((child) => child || child === 0));
    return element;
  }
  const html = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  const button = (key, attributes, ...children) =>
    html("button", { type: "button", "data-key": key, ...attributes }, children);
  const cells = (name, values, attributes = {}) => values.map((value) => html(name, attributes, String(value)));
  const tableOf = (caption, head, rows) => html("table", {}, caption && html("caption", {}, caption),
    html("thead", {}, html("tr", {}, cells("th", head, { scope: "col" }))), html("tbody", {}, rows));
  const mark = (fate) =>
    html("span", { class: "explorer-mark", "data-fate": fate, "aria-hidden": "true" }, MARKS[fate] || "•");
  const bytesOf = (packed) => Uint8Array.from(atob(packed.trim()), (letter) => letter.charCodeAt(0));

  /* A payload from the page or, once, from its file: a script, since a page from a disk may load nothing else. */
  async function load(root, name) {
    const own = [...root.querySelectorAll("script.explorer-data")].find((script) => script.dataset.name === name);
    if (!own && !window.explorerData?.[name]) {
      await new Promise((resolve, reject) => {
        if (!root.dataset.folder) throw new Error(name);
        const src = `${root.dataset.folder}/${encodeURIComponent(name.replaceAll("/", "--"))}.js`;
        document.head.append(html("script", { src, onload: resolve, onerror: reject }));
      });
    }
    const packed = new Blob([bytesOf(own ? own.textContent : window.explorerData[name])]);
    return new Response(packed.stream().pipeThrough(new DecompressionStream("deflate"))).json();
  }

  /* The points of one pooling, without side paths, and the answer. */
  const pointsOf = (state, pooling) => state.series.map(([own, point], place) => ({ own, point, p: state.p[place] }))
    .filter(({ own, point }) => own === ANSWER || (own === pooling && point[0] in MODULES));

  /* The path by the mean of the image tokens: at every point and of every image the probability of the true option and
   * of the best other one, and whether the true one is chosen. */
  const stepsOf = ({ options, labels }, state) => pointsOf(state, MEAN).map(({ point, p }) => {
    const truth = labels.map((label, image) => p[image * options.length + label]);
    const other = labels.map((label, image) =>
      Math.max(...options.map((_, option) => (option === label ? 0 : p[image * options.length + option]))));
    const right = truth.map((own, image) => (point === ANSWER ? state.fates[image] === 0 : own > other[image]));
    return { point, truth, other, right };
  });

  /* Of two steps, or one: a test of images, and its name. */
  const turned = (from, to, change) => (image) =>
    to.right[image] === (change === "right") && from?.right[image] !== to.right[image];
  const placeOf = ({ point }) => (point === ANSWER ? "the answer" : point);
  const turnName = (from, to, change) =>
    (from ? `became ${change} between ${placeOf(from)} and ${placeOf(to)}` : `${change} at ${placeOf(to)}`);

  /* Where the true option loses most probability from one point to the next. */
  function dropOf(steps, image) {
    const sizes = steps.map(({ truth }, n) => (n ? steps[n - 1].truth[image] - truth[image] : 0));
    const at = Math.max(1, sizes.indexOf(Math.max(...sizes)));
    return { from: steps[at - 1], to: steps[at], size: sizes[at] };
  }

  /* Horizontal places of points, with wider gaps between modules. */
  function spaced(points, start, width, gap) {
    const gaps = points.map((_, n) => points.slice(0, n).filter((point, k) => point[0] !== points[k + 1][0]).length);
    const step = (width - gap * gaps.at(-1)) / Math.max(1, points.length - 1);
    return points.map((_, n) => start + n * step + gap * gaps[n]);
  }
  const lineOf = (xs, ys) => xs.map((x, n) => `${n ? "L" : "M"}${x.toFixed(1)} ${ys[n].toFixed(1)}`).join("");

  function spark({ points, p }, image) {
    const [xs, ys] = [spaced(points, 3, 104, 6), p.map((values) => 19 - (16 * values[image]) / FULL)];
    const words = `true class: ${percent(p[0][image])} at ${points[0]}, ${percent(p.at(-1)[image])} in the answer`;
    return svg("svg", { width: 110, height: 22, role: "img", "aria-label": words }, svg("title", {}, words),
      svg("path", { class: "explorer-grid", d: "M0 3H110M0 19H110" }),
      svg("path", { class: "explorer-line", d: lineOf(xs.slice(0, -1), ys) }),
      svg("circle", { cx: xs.at(-1), cy: ys.at(-1), r: 2.5, fill: "currentColor" }));
  }

  function explore(root) {
    const names = JSON.parse(root.dataset.names);
    const fates = Object.keys(names.fates);
    const poolings = { ...names.poolings, [LENS]: "logit lens" };
    const number = String([...document.querySelectorAll(".explorer")].indexOf(root) + 1);
    const chosen = Object.fromEntries(KEYS.map((key) => [key, ""]));
    const loaded = {};
    let [turns, everything, unknown] = [0, false, []]; // everything: all tiles, not the first MOST
    let view = null; // of what is loaded, what the choices lead to

    const part = (name, ...children) => html("div", { class: `explorer-${name}` }, children);
    const [choices, filters, strip, flow, detail, chart, numbers] =
      ["choices", "filters", "strip", "flow", "detail", "chart", "numbers"].map((name) => part(name));
    const [note, status] = ["note", "status"].map((name) => fill(part(name), { role: "status" }, []));
    const table = html("details", {}, html("summary", {}, "Data of this chart"), numbers);
    const shownImages = part("images", status, strip);
    root.append(part("all", choices, note, filters, shownImages, detail, flow));

    const nameOf = (model) => names.models[model] || model;
    const classOf = (image) => view.images.options[view.images.labels[image]];
    const fateOf = (image) => fates[view.state.fates[image]];

    function choose(changes) {
      Object.assign(chosen, changes);
      everything &&= !FILTERS.some((key) => key in changes);
      unknown = [];
      return update(changes);
    }

    /* Drops what is not there; the first value is the default of what has to be chosen. */
    function settle(known) {
      for (const [key, values] of Object.entries(known)) {
        const own = key === "fate" ? chosen[key].split(",") : [chosen[key]];
        const there = own.every((value) => values.includes(value));
        if (chosen[key] && !there) unknown.push(`${key}=${chosen[key]}`);
        if (!there) chosen[key] = DUE.includes(key) ? values[0] : "";
      }
    }

    async function update(changes) {
      const turn = ++turns;
      settle({ model: Object.keys(names.models), dataset: Object.keys(names.datasets) });
      if (!view) note.textContent = "Loading the data…";
      const files = ["images", chosen.model, "models"].map((name) => `${name}/${chosen.dataset}`);
      const found = await Promise.allSettled(files.map((name) => (loaded[name] ||= load(root, name))));
      if (turn !== turns) return;
      found.forEach((one, n) => one.status === "rejected" && delete loaded[files[n]]);
      const [images, states, compared] = found.map(({ value }) => value);
      view = images && states ? viewOf(images, states, compared || {}) : null;
      draw(changes);
      if (changes) write();
    }

    function viewOf(images, states, compared) {
      const picture = images.sprites && [bytesOf(images.sprites.split(",")[1])];
      if (picture) images.sheet ??= URL.createObjectURL(new Blob(picture, { type: "image/jpeg" })); // a short address
      const [before, after] = ["pretrained", "finetuned"].map((own) =>
        states.find(({ stage, run }) => stage === own && run === 0));
      settle({ stage: [(after || states[0]).stage, ...states.map(({ stage }) => stage)] });
      const runs = states.filter(({ stage }) => stage === chosen.stage);
      settle({ run: runs.map(({ run }) => String(run)) });
      const state = runs.find(({ run }) => String(run) === chosen.run);
      const steps = (state.steps ??= stepsOf(images, state));
      const points = steps.map(({ point }) => point);
      const series = Object.keys(poolings).filter((pooling) => state.series.some(([own]) => own === pooling));
      settle({
        fate: fates, class: images.options, from: points, to: points, change: ["wrong", "right"], series,
        all: Object.keys(compared).length > 1 ? ["wrong"] : [], changed: before && after ? ["yes"] : [],
        sort: Object.keys(SORTS), image: images.labels.map((_, n) => String(n + 1)),
      });
      const broken = unknown.some((one) => /^(from|to|change)=/.test(one)) || !chosen.to || !chosen.change;
      if (broken) Object.assign(chosen, { from: "", to: "", change: "" });
      const [from, to] = [chosen.from, chosen.to].map((name) => steps.find(({ point }) => point === name));
      const others = Object.entries(compared).filter(([model]) => model !== chosen.model);
      return { images, states, compared, runs, state, before, after, steps, from, to, series, others };
    }

    /* The images that pass all filters, or all but one of them. */
    function passing(without) {
      const { images, compared, before, after, from, to } = view;
      const tests = {
        fate: (image) => chosen.fate.split(",").includes(fateOf(image)),
        class: (image) => classOf(image) === chosen.class,
        all: (image) => Object.values(compared).every((own) => own.fates[image] !== 0),
        changed: (image) => (before.fates[image] === 0) !== (after.fates[image] === 0),
        to: turned(from, to, chosen.change),
      };
      const active = Object.keys(tests).filter((key) => chosen[key] && key !== without);
      return [...images.labels.keys()].filter((image) => active.every((key) => tests[key](image)));
    }

    function sorted(shown) {
      const { truth, other } = view.steps.at(-1);
      const decision = (image) => Math.abs(truth[image] - other[image]);
      const key = { name: () => 0, decision, drop: (image) => -dropOf(view.steps, image).size }[chosen.sort || "name"];
      const keys = new Map(shown.map((image) => [image, key(image)]));
      return shown.sort((one, two) => keys.get(one) - keys.get(two)); // equal ones stay in the order of their names
    }

    function draw(changes) {
      const focused = root.contains(document.activeElement) && document.activeElement.dataset.key;
      drawChoices();
      for (const own of [filters, shownImages, detail, flow]) own.hidden = !view;
      const missing = `The data of ${nameOf(chosen.model)} on ${names.datasets[chosen.dataset]} is not here. `;
      const left = unknown.length ? `Not available here, and left out: ${unknown.join(", ")}.` : "";
      note.textContent = (view ? "" : missing) + left;
      if (view) {
        const shown = sorted(passing());
        const filtered = FILTERS.some((key) => changes && key in changes);
        if (filtered && !shown.includes(chosen.image - 1)) chosen.image = "";
        const image = chosen.image ? chosen.image - 1 : shown[0] ?? -1;
        drawFilters();
        drawStrip(shown, image);
        drawFlow();
        drawDetail(image, shown.includes(image));
        const count = `${shown.length} of ${view.images.labels.length} images`;
        if (status.textContent !== count) status.textContent = count;
      }
      const again = focused && root.querySelector(`[data-key="${CSS.escape(focused)}"]`);
      const instead = strip.querySelector("[tabindex='0']") || strip.querySelector("button");
      if (focused) (again || instead)?.focus({ preventScroll: true });
    }

    function select(key, label, values, more = {}) {
      const made = values.map(([value, name]) => html("option", { value, selected: value === chosen[key] }, name));
      const onchange = (event) => choose({ [key]: event.target.value, ...more });
      return html("label", {}, html("span", {}, label), html("select", { "data-key": key, onchange }, made));
    }

    function drawChoices() {
      const stages = new Set(view?.states.map(({ stage }) => stage));
      choices.replaceChildren(select("model", "Model", Object.entries(names.models)),
        select("dataset", "Data set", Object.entries(names.datasets), { class: "", image: "" }));
      if (!view) return;
      choices.append(select("stage", "Stage", [...stages].map((stage) => [stage, names.stages[stage]]), { run: "" }),
        select("run", "Run", view.runs.map(({ run }) => [String(run), String(run)])),
        select("class", "Class", [["", "all"], ...view.images.options.map((option) => [option, option])]),
        select("sort", "Sort by", Object.entries(SORTS)));
    }

    /* A button that sets a filter, or clears it where it is set. */
    function toggle(values, attributes, ...content) {
      const on = Object.keys(values).every((key) => chosen[key] === values[key]);
      const onclick = () => choose(on ? Object.fromEntries(Object.keys(values).map((key) => [key, ""])) : values);
      return button(JSON.stringify(values), { "aria-pressed": String(on), onclick, ...attributes }, content);
    }
    const clear = () => button("clear", { onclick: () => choose(Object.fromEntries(FILTERS.map((key) => [key, ""]))) },
      "Clear the filters");

    function drawFilters() {
      const [own, active] = [passing("fate"), chosen.fate.split(",")];
      const buttons = fates.map((fate) => {
        const [on, count] = [active.includes(fate), own.filter((image) => fateOf(image) === fate).length];
        const wanted = fates.filter((one) => (one === fate ? !on : active.includes(one))).join(",");
        const onclick = () => choose({ fate: wanted });
        return button(`fate ${fate}`, { "aria-pressed": String(on), "data-none": !count, onclick }, mark(fate),
          html("span", {}, names.fates[fate]), html("b", {}, count));
      });
      const { from, to, change } = chosen;
      filters.replaceChildren(html("div", { role: "group", "aria-label": "Fate" }, buttons),
        html("div", { role: "group", "aria-label": "Other filters" },
          Object.keys(view.compared).length > 1 && toggle({ all: "wrong" }, {}, "all models wrong"),
          view.before && view.after && toggle({ changed: "yes" }, {}, "changed by fine-tuning"),
          to && toggle({ from, to, change }, { "data-key": "turned" }, turnName(view.from, view.to, change)),
          FILTERS.some((key) => chosen[key]) && clear()));
    }

    /* The class and look of an image's tile. */
    function tile(image) {
      const { sheet, columns, labels } = view.images;
      const share = (place, count) => `${(100 * place) / Math.max(1, count - 1)}%`;
      const down = share(Math.floor(image / columns), Math.ceil(labels.length / columns));
      const place = `${share(image % columns, columns)} ${down} / ${100 * columns}% auto`;
      return { class: "explorer-tile", style: sheet && `background:url(${sheet}) ${place}` };
    }

    function drawStrip(shown, image) {
      const some = everything ? shown : shown.slice(0, MOST);
      const first = some.includes(image) ? image : some[0];
      const list = html("ul", { role: "list", "aria-label": "Test images", onkeydown: walk }, some.map((own) => {
        const title = `image ${own + 1}, ${classOf(own)}, ${names.fates[fateOf(own)]}`;
        return html("li", {}, button(`image ${own}`, { ...tile(own), title, "aria-label": title,
          tabindex: own === first ? "0" : "-1", "aria-current": own === image && "true",
          onclick: () => choose({ image: String(own + 1) }) }, view.images.sheet ? "" : own + 1, mark(fateOf(own))));
      }));
      const all = button("all", { onclick: () => { everything = true; draw(); } }, `Show all ${shown.length}`);
      strip.replaceChildren(shown.length ? list : html("p", {}, "No image passes these filters. ", clear()),
        some.length < shown.length ? html("p", {}, `The first ${MOST} are shown. `, all) : "");
      const place = list.querySelector("[aria-current]")?.offsetTop;
      const seen = place >= strip.scrollTop && place < strip.scrollTop + strip.clientHeight - 40;
      if (!seen) strip.scrollTop = place - strip.clientHeight / 2 || 0;
    }

    function walk(event) {
      const tiles = [...event.currentTarget.querySelectorAll("button")];
      const at = tiles.indexOf(document.activeElement);
      const top = (one) => one.getBoundingClientRect().top;
      const across = tiles.filter((one) => top(one) === top(tiles[0])).length;
      const places = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - across, ArrowDown: at + across };
      const next = tiles[{ ...places, Home: 0, End: tiles.length - 1 }[event.key]];
      if (next || event.key in places) event.preventDefault();
      if (!next) return;
      tiles.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
      next.focus();
    }

    function drawFlow() {
      const within = passing("to");
      const cell = (from, to, change, style) => {
        const count = within.filter(turned(from, to, change)).length;
        const values = { from: from?.point || "", to: to.point, change };
        const label = `${count} ${turnName(from, to, change)}`;
        const set = toggle(values, { style: style?.(count), "aria-label": label }, count);
        return html("td", {}, count || set.matches("[aria-pressed=true]") ? set : html("span", {}, "0"));
      };
      const share = (count) => `--share:${(100 * count) / Math.max(1, within.length)}%`;
      const rows = view.steps.map((to, n, { [n - 1]: from }) => {
        const changes = ["wrong", "right"].map((change) => (from ? cell(from, to, change) : html("td", {})));
        return html("tr", { class: from && from.point[0] !== to.point[0] && "explorer-start" },
          cells("th", [to.point], { scope: "row" }), cell(null, to, "right", share), changes);
      });
      const head = ["Point", "Right", "Became wrong", "Became right"];
      flow.replaceChildren(tableOf(`From point to point, ${within.length} images`, head, rows));
    }

    function drawDetail(image, passes) {
      view.image = image;
      detail.hidden = image < 0;
      if (detail.hidden) return;
      const { images, state, others, series, steps } = view;
      const { from, to, size } = dropOf(steps, image);
      const drop = () => [from, to].map((step) => `${percent(step.truth[image])} at ${placeOf(step)}`).join(" → ");
      const fateIn = (fate) => [mark(fate), ` ${names.fates[fate]}`];
      const facts = Object.entries({
        "True class": classOf(image),
        "Generated text": `“${state.texts[state.text[image]]}”`,
        Fate: fateIn(fateOf(image)),
        "Largest drop of the true class": size > 0 && drop(),
        Patient: images.patient?.[image],
        "Group of duplicates": images.duplicate_group?.[image],
      }).filter(([, value]) => (value ?? false) !== false);
      const label = `Test image ${image + 1}, ${classOf(image)}`;
      const rows = others.map(([model, own]) => {
        const change = { model, stage: "finetuned", run: "0", image: String(image + 1) };
        const link = button(`model ${model}`, { onclick: () => choose(change) }, nameOf(model));
        return html("li", {}, model in names.models ? link : html("span", {}, model), spark(own, image),
          html("span", {}, fateIn(fates[own.fates[image]])));
      });
      const known = series.map((own) => [own, poolings[own]]);
      const title = [html("b", {}, "The same image in the other models"), `, ${names.stages.finetuned}`];
      detail.replaceChildren(
        part("title", html("b", {}, `Image ${image + 1}`), " ", images.names?.[image],
          !passes && " (does not pass the filters)"),
        part("facts", images.sheet && html("div", { ...tile(image), role: "img", "aria-label": label }),
          html("dl", {}, facts.map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]))),
        part("path", select("series", "Probability of each option", known), chart, table),
        rows.length ? part("others", html("div", {}, title), html("ul", { role: "list" }, rows)) : "",
      );
      drawChart();
    }

    function drawChart() {
      const { images: { options, labels }, state, others, image } = view;
      view.width = chart.clientWidth;
      const [width, height, left, top, label] = [Math.max(260, view.width), 190, 42, 6, labels[image]];
      const pooling = chosen.series || MEAN;
      const series = pointsOf(state, pooling);
      const points = series.map(({ point }) => point);
      const xs = spaced(points, left + 10, width - left - 30, 24);
      const y = (p) => top + height * (1 - p / FULL);
      const value = (n, option) => series[n].p[image * options.length + option];
      const look = (n) => `--line:var(--explorer-${1 + (n % 5)});--dash:${n === label ? "none" : DASHES[n % 3]}`;
      const shape = (kind, d, n = null) =>
        svg("path", { class: `explorer-${kind}`, style: n !== null && look(n), d, "data-true": n === label });
      const text = (x, down, words, anchor = "middle") => svg("text", { x, y: down, "text-anchor": anchor }, words);
      const modules = Object.keys(MODULES).map((letter) => {
        const its = xs.filter((_, n) => points[n][0] === letter);
        const box = { x: its[0] - 9, width: its.at(-1) - its[0] + 18, y: top, height };
        const name = text((its[0] + its.at(-1)) / 2, top + height + 30, width > 430 ? MODULES[letter] : letter);
        return its.length && [svg("rect", { class: "explorer-module", ...box }), name];
      });
      const levels = [0, FULL / 2, FULL].map((p) =>
        [text(left - 6, y(p) + 4, percent(p), "end"), shape("grid", `M${left} ${y(p)}H${width}`)]);
      const starts = [...points.keys()].filter((n) => points[n][0] !== points[n - 1]?.[0]);
      const numbered = []; // as many points as have room, first of all those where a module starts
      for (const n of [...starts, ...points.keys()]) {
        if (points[n] !== ANSWER && numbered.every((other) => Math.abs(xs[n] - xs[other]) > 17)) numbered.push(n);
      }
      const ticks = [...numbered.map((n) => text(xs[n], top + height + 15, points[n].slice(2))),
        text(width, top + height + 30, ANSWER, "end")];
      const reach = Math.min(18, xs[1] - xs[0]);
      const bars = points.map((point, n) => {
        const its = others.map(([, own]) => own.p[own.points.indexOf(point)]?.[image]).filter((p) => p >= 0);
        return pooling === MEAN && its.length ? `M${xs[n]} ${y(Math.min(...its)) + 1}V${y(Math.max(...its)) - 1}` : "";
      }).join("");
      const band = shape("band", bars, label);
      band.style.strokeWidth = reach;
      const lines = [...options.keys()].sort((one, two) => (one === label) - (two === label)).map((option) => {
        const ys = points.map((_, n) => y(value(n, option)));
        const diamond = `M${xs.at(-1)} ${ys.at(-1) - 6}l5 6l-5 6l-5 -6z`;
        return [shape("line", lineOf(xs.slice(0, -1), ys), option), shape("end", diamond, option)];
      });
      const inWords = (n) => `${points[n]}: ${options.map((name, k) => `${name} ${percent(value(n, k))}`).join(", ")}`;
      const hits = points.map((_, n) =>
        svg("rect", { x: xs[n] - reach / 2, y: top, width: reach, height, opacity: 0 }, svg("title", {}, inWords(n))));
      const mine = (n) => `${options[n]}${n === label ? " (true class)" : ""}`;
      const words = `Probability of each option, at ${inWords(0)}; in the ${inWords(points.length - 1)}`;
      const key = (name, drawn) =>
        html("span", {}, svg("svg", { width: 26, height: 12, "aria-hidden": "true" }, drawn), ` ${name}`);
      chart.replaceChildren(
        part("keys", options.map((_, n) => key(mine(n), shape("line", "M0 6H26", n))),
          key(ANSWER, shape("end", "M13 0l5 6l-5 6l-5 -6z")),
          bars && key("true class in the other models, range", shape("band", "M1 6H25", label))),
        svg("svg", { viewBox: `0 0 ${width} ${top + height + 36}`, role: "img", "aria-label": words }, modules, levels,
          ticks, band, lines, hits));
      const rows = points.map((point, n) => html("tr", {}, cells("th", [point], { scope: "row" }),
        cells("td", options.map((_, option) => percent(value(n, option))))));
      numbers.replaceChildren(tableOf("", ["Point", ...options], rows));
    }

    function write() {
      const own = Object.entries({ explorer: number > 1 && number, ...chosen }).filter(([, value]) => value);
      const hash = own.map(([key, value]) => `${key}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
      history.replaceState(null, "", `#${hash}`);
    }

    /* Takes the choices from the address, where it has any of this explorer. */
    async function follow() {
      const given = new URLSearchParams(location.hash.slice(1));
      const meant = (given.get("explorer") || "1") === number && KEYS.some((key) => given.get(key));
      if (meant) for (const key of KEYS) chosen[key] = given.get(key) || "";
      unknown = [];
      await update();
      if (meant) root.scrollIntoView();
    }

    new ResizeObserver(() => view?.image >= 0 && chart.clientWidth !== view.width && drawChart()).observe(chart);
    addEventListener("hashchange", () => root.isConnected && follow());
    follow();
  }

  for (const root of document.querySelectorAll(".explorer:not([data-ready])")) {
    Object.assign(root.dataset, { ready: "", lmSuppressShortcuts: "true" }); // JupyterLab leaves its keys to it
    explore(root);
  }
})();
