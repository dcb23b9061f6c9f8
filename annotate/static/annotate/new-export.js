// Shows only the filters of what is to be exported. What is hidden is not sent.

function show(what) {
  for (const part of document.querySelectorAll("fieldset[class*='only-']")) {
    const fits = part.classList.contains(`only-${what}`);
    part.hidden = part.disabled = !fits && !part.querySelector(".errors");
  }
}

addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("id_what");
  if (!choice) return;
  const showChosen = () => show(choice.value.split(":")[0]);
  choice.addEventListener("change", showChosen);
  showChosen();
});
