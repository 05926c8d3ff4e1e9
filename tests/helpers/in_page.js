// What the browser tests measure inside a page. Nothing here changes more of it than what is scrolled or moving.
window.inPage = {
  /** Ends what fades or slides: half way, colours are neither the old nor the new ones. */
  settle() {
    for (const animation of document.getAnimations()) {
      if (animation.effect.getComputedTiming().endTime !== Infinity) animation.finish();
    }
  },

  /** A short selector of an element, for messages. */
  name(element) {
    const own = element.id ? `#${element.id}` : [...element.classList].slice(0, 3).map((c) => `.${c}`).join("");
    const parent = own || element === document.body ? "" : `${inPage.name(element.parentElement)} > `;
    return `${parent}${element.localName}${own}`;
  },

  visible(element) {
    const box = element.getBoundingClientRect();
    const shown = element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    const size = element instanceof SVGGeometryElement ? Math.max : Math.min; // a level line has no height
    return shown && size(box.width, box.height) > 0;
  },

  /** Elements that make the page wider than the window; those that scroll inside a box of their own do not. */
  overflowing() {
    const root = document.scrollingElement;
    if (root.scrollWidth <= root.clientWidth) return [];
    const clips = (element) => getComputedStyle(element).overflowX !== "visible";
    const held = (element) => {
      for (let p = element.parentElement; p && p !== document.body; p = p.parentElement) if (clips(p)) return true;
      return false;
    };
    const wide = [...document.body.querySelectorAll("*")].filter(
      (element) => element.getBoundingClientRect().right > root.clientWidth + 0.5 && !held(element),
    );
    const innermost = wide.filter((element) => !wide.some((other) => other !== element && element.contains(other)));
    return [`${root.scrollWidth} px wide`, ...innermost.slice(0, 8).map(inPage.name)];
  },

  /** [r, g, b, a] of any CSS colour. */
  colour(css) {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = css;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  },

  /** An element's paint (fill, stroke or backgroundColor) over what lies below it. */
  painted(element, paint, below) {
    const style = getComputedStyle(element);
    if (style[paint] === "none") return below;
    let [r, g, b, a] = inPage.colour(style[paint]);
    if (paint !== "backgroundColor") a *= Number(style[`${paint}Opacity`]);
    for (let e = element; e; e = e.parentElement) a *= Number(getComputedStyle(e).opacity);
    return [r, g, b].map((channel, i) => a * channel + (1 - a) * below[i]);
  },

  /** The page's colour behind an element, and behind a chart's text that of the shapes that it stands on. */
  ground(element) {
    let colour = [255, 255, 255];
    const around = [];
    for (let e = element; e; e = e.parentElement) around.unshift(e);
    for (const e of around) if (e instanceof HTMLElement) colour = inPage.painted(e, "backgroundColor", colour);
    if (element.localName !== "text") return colour;
    element.scrollIntoView({ block: "center", inline: "center" });
    const box = element.getBoundingClientRect();
    const there = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2).reverse();
    const under = there.filter(
      (e) =>
        e instanceof SVGGeometryElement &&
        e.ownerSVGElement === element.ownerSVGElement &&
        e.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING,
    );
    for (const shape of under) colour = inPage.painted(shape, "fill", colour);
    return colour;
  },

  contrast(element, paint) {
    const luminance = (colour) => {
      const linear = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const ground = inPage.ground(element);
    const [light, dark] = [luminance(inPage.painted(element, paint, ground)), luminance(ground)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  },

  /** Text below 4.5:1 and data lines below 3:1 in the charts, charts that are not drawn, and how many were measured. */
  charts() {
    const sheet = document.createElement("style");
    sheet.textContent = "svg, svg * { pointer-events: visiblePainted !important }"; // all shapes can be found
    document.head.append(sheet);
    const charts = [...document.querySelectorAll("figure.chart svg[role=img]")];
    const found = charts.filter((svg) => !inPage.visible(svg)).map((svg) => `not drawn: ${inPage.name(svg)}`);
    const measure = (selector, paint, least, wanted = () => true) => {
      const all = charts.flatMap((svg) => [...svg.querySelectorAll(selector)]).filter(inPage.visible);
      const elements = all.filter(wanted);
      for (const element of elements) {
        const contrast = inPage.contrast(element, paint);
        const words = element.textContent || inPage.name(element);
        if (contrast < least) found.push(`${contrast.toFixed(1)}:1 ${words.slice(0, 40)}`);
      }
      return elements.length;
    };
    const seen = measure("text", "fill", 4.5);
    const lines = measure("path[data-told], line[data-told]", "stroke", 3, (mark) =>
      mark.localName === "line" || getComputedStyle(mark).fill === "none");
    sheet.remove();
    const texts = document.querySelectorAll(".chart-panel:not(.chart-panel-wide) text").length; // a wide one scrolls
    return { found: [...new Set(found)], drawings: charts.length, seen, texts, lines };
  },

  /** What a user without a mouse must be able to reach. A closed menu's, a hidden sidebar's elements are not there. */
  reachable() {
    const selector = "a[href], button, input, select, textarea, summary, [tabindex]";
    return [...document.querySelectorAll(selector)].filter(
      (e) => inPage.visible(e) && !e.disabled && e.tabIndex >= 0 && !e.closest("[inert]"),
    );
  },

  /** The looks that may tell that an element has the focus. */
  looks(element) {
    const style = getComputedStyle(element);
    const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 ? style.outline : "";
    const names = ["boxShadow", "borderColor", "backgroundColor", "textDecoration"];
    return JSON.stringify([outline, ...names.map((name) => style[name])]);
  },

  /** Keeps what must be reached, and its looks without the focus; how many there are. */
  beginWalk() {
    document.activeElement.blur();
    inPage.settle();
    window.walk = { due: inPage.reachable(), before: new Map(), met: new Set(), plain: [], hidden: [] };
    for (const element of document.querySelectorAll("*")) walk.before.set(element, inPage.looks(element));
    return walk.due.length;
  },

  /** Notes the element that Tab has led to; false once the walk has come round. */
  step() {
    const element = document.activeElement;
    if (element === document.body || walk.met.has(element)) return false;
    walk.met.add(element);
    inPage.settle();
    if (!inPage.visible(element)) walk.hidden.push(inPage.name(element));
    else if (inPage.looks(element) === walk.before.get(element)) walk.plain.push(inPage.name(element));
    return true;
  },

  endWalk() {
    const missed = walk.due.filter((element) => !walk.met.has(element)).map(inPage.name);
    return { missed, plain: walk.plain, hidden: walk.hidden, reached: walk.met.size };
  },

  /** Where the marks of a chart are on the screen, and the text of each: [{x, y, told}]. */
  marks(svg) {
    return [...svg.querySelectorAll("[data-told]")].flatMap((mark) => {
      const told = mark.dataset.told.split("|");
      const box = mark.getBoundingClientRect();
      if (told.length === 1) return [{ x: box.x + box.width / 2, y: box.y + box.height / 2, told: told[0] }];
      const corners = [...mark.getAttribute("d").matchAll(/[ML]\s*(-?[\d.]+)[\s,]+(-?[\d.]+)/g)];
      const toScreen = mark.getScreenCTM();
      return corners.map(([, x, y], i) => {
        const { x: left, y: top } = new DOMPoint(x, y).matrixTransform(toScreen);
        return { x: left, y: top, told: told[i] };
      });
    });
  },
};
