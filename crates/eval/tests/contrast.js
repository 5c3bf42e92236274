// Texts of a page that stand out too little from the nearest background behind them, by WCAG 2: the report's tests and those of
// the server's page put this before their own checks.
function faintTexts(selector) {
  "use strict";
  const channels = (color) => (color.match(/[\d.]+/g) || []).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const color = channels(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(color), luminance(background(element))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const named = (element) => `${element.tagName} ${element.id || element.getAttribute("class") || ""}`;
  return [...document.querySelectorAll(selector)]
    .filter((element) => !(contrast(element) >= 4.5))
    .map((element) => `contrast ${contrast(element).toFixed(2)} of ${named(element)}`);
}
