/* What a chart gains from JavaScript: tooltips, one name singled out in all charts of the page, enlargement.
 * Without it everything is there to read; mlprobe_utils/figures.py says which attributes are read here. */
(() => {
  "use strict";

  const JOINT = " · ";
  const REACH = 0.12; // between pointer and mark, as a share of the drawing's width
  const tooltip = document.createElement("div");
  tooltip.className = "chart-tooltip";
  tooltip.setAttribute("role", "tooltip");
  tooltip.id = "chart-tooltip";
  tooltip.hidden = true;

  function tell(lines, x, y) {
    const [first, ...rest] = lines;
    const strong = document.createElement("strong");
    strong.textContent = rest.length ? first : "";
    tooltip.replaceChildren(...(rest.length ? [strong, rest.join(" ")] : [first]));
    tooltip.hidden = false;
    const { width, height } = tooltip.getBoundingClientRect();
    const above = y - height - 12;
    tooltip.style.left = `${Math.max(4, Math.min(x - width / 2, document.documentElement.clientWidth - width - 4))}px`;
    tooltip.style.top = `${above > 4 ? above : y + 16}px`;
  }

  function hush() {
    tooltip.hidden = true;
    document.querySelectorAll(".chart-cursor").forEach((cursor) => cursor.remove());
  }

  /* The marks of a drawing that have something to tell: each a list of vertices in the drawing's own units. */
  function marksOf(svg) {
    if (!svg.marks) {
      svg.marks = [...svg.querySelectorAll("[data-told]")].map((element) => {
        const told = element.dataset.series ? element.dataset.told.split("|") : [element.dataset.told];
        const names = (element.dataset.series || "").split("|").filter(Boolean);
        const toDrawing = svg.getScreenCTM().inverse().multiply(element.getScreenCTM());
        return { element, vertices: places(element, told.length).map(([x, y], n) => {
          const place = new DOMPoint(x, y).matrixTransform(toDrawing);
          return { x: place.x, y: place.y, lines: [told[n], ...(names.length ? [names.join(" · ")] : [])] };
        }) };
      }).sort((one, other) => one.vertices[0].x - other.vertices[0].x);
    }
    return svg.marks.filter((mark) => !mark.element.classList.contains("dimmed"));
  }

  /* Corners of a line, or the middle of anything else, in the element's units. */
  function places(element, count) {
    if (count > 1) {
      const numbers = element.getAttribute("d").match(/-?[\d.]+/g).map(Number);
      return Array.from({ length: count }, (_, n) => [numbers[2 * n], numbers[2 * n + 1]]);
    }
    const box = element.getBBox();
    return [[box.x + box.width / 2, box.y + box.height / 2]];
  }

  function point(svg, vertex) {
    hush();
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    cursor.setAttribute("class", "chart-cursor");
    cursor.setAttribute("cx", vertex.x);
    cursor.setAttribute("cy", vertex.y);
    cursor.setAttribute("r", 5);
    svg.append(cursor);
    const place = new DOMPoint(vertex.x, vertex.y).matrixTransform(svg.getScreenCTM());
    tell(vertex.lines, place.x, place.y);
  }

  function nearest(svg, event) {
    const toScreen = svg.getScreenCTM();
    let best = null;
    let least = Math.max(30, REACH * svg.getBoundingClientRect().width);
    for (const mark of marksOf(svg)) {
      for (const vertex of mark.vertices) {
        const place = new DOMPoint(vertex.x, vertex.y).matrixTransform(toScreen);
        const distance = Math.hypot(place.x - event.clientX, place.y - event.clientY);
        if (distance < least) [best, least] = [vertex, distance];
      }
    }
    return best;
  }

  /* Arrow keys: along a line with left and right, from mark to mark and on to the next panel with up and down. */
  function step(svg, key) {
    const marks = marksOf(svg);
    const at = svg.at || { mark: 0, vertex: 0 };
    if (key === "ArrowLeft") at.vertex -= 1;
    if (key === "ArrowRight") at.vertex += 1;
    if (key === "ArrowUp") at.mark -= 1;
    if (key === "ArrowDown") at.mark += 1;
    if (at.mark < 0 || at.mark >= marks.length) {
      const drawings = [...svg.closest(".chart-panels").querySelectorAll("svg[tabindex]")];
      const next = drawings[drawings.indexOf(svg) + (at.mark < 0 ? -1 : 1)];
      at.mark = Math.max(0, Math.min(at.mark, marks.length - 1));
      if (next) return next.focus();
    }
    const { vertices } = marks[at.mark];
    at.vertex = Math.max(0, Math.min(at.vertex, vertices.length - 1));
    svg.at = at;
    point(svg, vertices[at.vertex]);
  }

  /* A drawing that is read by keyboard keeps its tooltip while the page moves under it. */
  function follow() {
    const drawing = document.activeElement.matches("svg[tabindex]") && !tooltip.hidden;
    if (drawing) step(document.activeElement, "");
    else hush();
  }

  function prepareDrawing(svg) {
    if (!svg.querySelector("[data-told]")) return;
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-describedby", tooltip.id);
    const look = (event) => {
      const vertex = nearest(svg, event);
      if (vertex) point(svg, vertex);
      else hush();
    };
    svg.addEventListener("pointermove", look);
    svg.addEventListener("click", look); // a finger does not hover, and what it told stays until the next touch
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hush());
    svg.addEventListener("blur", hush);
    svg.addEventListener("focus", () => svg.matches(":focus-visible") && step(svg, ""));
    svg.addEventListener("keydown", (event) => {
      if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
      step(svg, event.key);
    });
  }

  /* One name of a kind can be singled out at a time, in every chart of the page that knows it. */
  function single(key) {
    const pressed = key.getAttribute("aria-pressed") !== "true";
    const kind = key.parentElement.getAttribute("aria-label");
    for (const other of document.querySelectorAll(`.chart-keys[aria-label="${kind}"] .chart-key`)) {
      other.setAttribute("aria-pressed", String(pressed && other.dataset.highlight === key.dataset.highlight));
    }
    const chosen = new Set(
      [...document.querySelectorAll('.chart-key[aria-pressed="true"]')].map((one) => one.dataset.highlight),
    );
    for (const chart of document.querySelectorAll(".chart")) {
      const marks = [...chart.querySelectorAll("[data-series]")].map((mark) => [mark, mark.dataset.series.split("|")]);
      const known = new Set(marks.flatMap(([, names]) => names));
      const wanted = [...chosen].filter((name) => known.has(name));
      for (const [mark, names] of marks) {
        mark.classList.toggle("dimmed", !wanted.every((name) => names.includes(name)));
      }
    }
  }

  /* Lists in the place of folds: one panel is shown, by its facets, and the page's address says which. */
  function choices(container) {
    const folds = [...container.children].map((fold) => ({
      fold,
      values: fold.querySelector("summary").textContent.split(JOINT),
    }));
    const form = document.createElement("form");
    form.className = "chart-chooser";
    const lists = container.dataset.facets.split(JOINT).map((facet, n) => {
      const label = document.createElement("label");
      const list = document.createElement("select");
      for (const value of new Set(folds.map(({ values }) => values[n]))) list.append(new Option(value));
      label.append(`${facet} `, list);
      form.append(label);
      return list;
    });
    const show = (chosen) => {
      for (const one of folds) one.fold.open = one === chosen;
      lists.forEach((list, n) => { list.value = chosen.values[n]; });
    };
    lists.forEach((list, n) => list.addEventListener("change", () => {
      const alike = ({ values }) => values.filter((value, place) => value === lists[place].value).length;
      const fitting = folds.filter(({ values }) => values[n] === list.value);
      show(fitting.reduce((best, one) => (alike(one) > alike(best) ? one : best)));
      const wanted = lists.map(({ value }) => value).join(JOINT);
      history.replaceState(null, "", `#${container.id}=${encodeURIComponent(wanted)}`);
    }));
    const follow = () => {
      const [place, wanted] = location.hash.slice(1).split("=");
      const found = folds.find(({ values }) => values.join(JOINT) === decodeURIComponent(wanted || ""));
      if (place !== container.id || !found) return;
      show(found);
      container.closest("figure").scrollIntoView();
    };
    container.classList.add("chart-chosen");
    container.prepend(form);
    show(folds.find(({ fold }) => fold.open));
    addEventListener("hashchange", follow);
    follow();
  }

  /* The drawing moves into a dialog and back: there is one, not two. */
  function enlarge(chart, opener) {
    const body = chart.querySelector(".chart-body");
    const place = document.createComment("enlarged");
    const dialog = document.createElement("dialog");
    dialog.className = "chart chart-dialog";
    dialog.style.setProperty("--columns", chart.style.getPropertyValue("--columns"));
    dialog.setAttribute("aria-label", chart.querySelector("figcaption").firstChild.textContent.trim());
    let zoom = 1;
    const button = (name, action) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = name;
      made.addEventListener("click", action);
      return made;
    };
    const scale = (factor) => () => {
      zoom = Math.max(1, Math.min(zoom * factor, 6));
      dialog.style.setProperty("--zoom", zoom);
    };
    dialog.append(button("Close", () => dialog.close()), button("Larger", scale(1.5)), button("Smaller", scale(1 / 1.5)));
    body.replaceWith(place);
    dialog.append(body);
    dialog.addEventListener("close", () => {
      hush();
      place.replaceWith(body);
      dialog.remove();
      document.body.append(tooltip);
      opener.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.append(tooltip); // above a modal dialog only what is inside of it is seen
  }

  function prepare() {
    document.body.append(tooltip);
    document.querySelectorAll(".chart-choices").forEach(choices);
    if (matchMedia("(max-width: 40rem)").matches) {
      document.querySelectorAll(".chart-legend").forEach((legend) => { legend.open = false; });
    }
    document.querySelectorAll("figure.chart svg[role=img]").forEach(prepareDrawing);
    document.querySelectorAll(".bd-links summary").forEach((toggle) => {
      toggle.setAttribute("aria-label", `Pages below ${toggle.closest("li").querySelector("a").textContent.trim()}`);
    });
    document.querySelectorAll(".chart-key").forEach((key) => {
      key.disabled = false;
      key.addEventListener("click", () => single(key));
    });
    document.querySelectorAll(".chart-zoom").forEach((opener) => {
      opener.hidden = false;
      opener.addEventListener("click", () => enlarge(opener.closest("figure"), opener));
    });
    document.querySelectorAll("a[data-told]").forEach((term) => {
      const show = () => {
        const box = term.getBoundingClientRect();
        tell([term.dataset.told], box.x + box.width / 2, box.y);
      };
      term.setAttribute("aria-describedby", tooltip.id);
      ["pointerenter", "focus"].forEach((event) => term.addEventListener(event, show));
      ["pointerleave", "blur"].forEach((event) => term.addEventListener(event, hush));
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && hush());
    document.addEventListener("pointerdown", hush);
    document.addEventListener("scroll", follow, { passive: true });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", prepare);
  else prepare();
})();
