"use strict";
for (const block of document.querySelectorAll(".copy")) {
  const [text, button, status] = ["code", "button", "[role=status]"].map((part) => block.querySelector(part));
  const select = () => getSelection().selectAllChildren(text);
  // Older browsers, and pages that may not use the clipboard, copy what is selected, or leave that to the reader.
  const copySelected = () => {
    select();
    return document.execCommand("copy") ? "Copied" : "Selected: copy it with Ctrl+C";
  };
  button.hidden = false;
  button.addEventListener("click", async () => {
    status.textContent = "";
    status.textContent = await Promise.resolve()
      .then(() => navigator.clipboard.writeText(text.textContent))
      .then(() => "Copied", copySelected);
  });
}
