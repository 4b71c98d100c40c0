"use strict";
/* The theme, before anything is painted; and what the leaderboard's script needs. No request is made: the data are in the page. */
const dfgrid = (() => {
  const root = document.documentElement;
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a browser that keeps nothing for files */ } };
  const themes = ["system", "light", "dark"];
  let theme = themes.includes(kept("dfgrid-theme")) ? kept("dfgrid-theme") : "system";
  const apply = () => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
  };
  apply();

  const $ = (id) => document.getElementById(id);
  const el = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;  // never markup: names are users' words
    return made;
  };
  const letters = (n) => (n >= 26 ? letters(Math.floor(n / 26) - 1) : "") + String.fromCharCode(97 + (n % 26));

  document.addEventListener("DOMContentLoaded", () => {
    const button = $("theme");
    const say = () => { button.textContent = `Theme: ${theme}`; };
    say();
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      keep("dfgrid-theme", theme);
      apply();
      say();
    });
  });

  return { $, el, letters };
})();
