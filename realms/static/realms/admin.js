// Every two seconds, fetches the content of the element with the attribute `data-refresh` from the
// server. Pauses while the page is hidden, while the user is working in the element, and while the
// checkbox below the element is off.
addEventListener("DOMContentLoaded", () => {
  const part = document.querySelector("[data-refresh]");
  if (!part) return;
  const note = document.createElement("p");
  note.id = "refresh-note";
  note.setAttribute("role", "status");
  const label = document.createElement("label");
  const wanted = document.createElement("input");
  wanted.type = "checkbox";
  wanted.checked = true;
  label.append(wanted, " Refresh every 2 seconds");
  part.after(label, note);
  let last = new Date();

  const say = (text) => {
    if (note.textContent !== text) note.textContent = text;
  };
  const inUse = () =>
    part.querySelector("details[open], :active, :focus") !== null ||
    (!getSelection().isCollapsed && part.contains(getSelection().anchorNode));

  async function refresh() {
    if (!wanted.checked || document.hidden) return say("");
    if (inUse()) return say("Paused while you use this part");
    const address = new URL(part.dataset.refresh, location.href);
    address.search = location.search;
    address.searchParams.set("fragment", "1");
    try {
      const answer = await fetch(address, { signal: AbortSignal.timeout(5000) });
      if (answer.redirected || answer.status === 403) return say("Access ended: reload this page");
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      if (inUse() || !wanted.checked) return;
      part.innerHTML = html;
      last = new Date();
      say("");
    } catch {
      say(`The last refresh failed; this part was fetched at ${last.toLocaleTimeString()}`);
    }
  }
  const again = () => setTimeout(() => refresh().finally(again), 2000);
  again();
});
