/* A module of its own: the desk listens to keys before page.js does, so it must not import from there. */

/** Keep an element told of how far down the bar reaches, as --bar: what sticks below it must not lie under it. */
export function underBar(element) {
  const bar = document.querySelector(".bar");
  const watch = new ResizeObserver(() => element.style.setProperty("--bar", `${bar.offsetHeight}px`));
  watch.observe(bar);
  return watch;
}
