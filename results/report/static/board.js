"use strict";
/* The leaderboard: one table from the JSON in the page, sorted and filtered; its state stands in the address. */
(() => {
  const { $, el, letters } = dfgrid;

  document.addEventListener("DOMContentLoaded", () => {
    const data = JSON.parse($("data").textContent);
    const levels = data.levels.length, metrics = data.metrics.length;
    const sortedNames = (values) => [...new Set(values)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const options = {
      selection: data.selections.map((s) => [s.name, s.label]),
      level: data.levels.map((l) => [l, l]),
      metric: data.metrics.map((m) => [m.name, m.title]),
      grid: [["", "all"], ...data.grids.map((g, i) => [String(i), g])],
      detector: [["", "all"], ...sortedNames(data.cells.map((c) => c.d)).map((n) => [n, n])],
      optimizer: [["", "all"], ...sortedNames(data.cells.map((c) => c.o)).map((n) => [n, n])],
      protocol: [["", "all"], ...data.protocols.map((p, i) => [String(i), p.label])],
      store: [["", "all"], ...sortedNames(data.tests.map((t) => t.store)).filter(Boolean).map((n) => [n, n])],
    };
    const manySeeds = new Set(data.cells.map((c) => c.s)).size > 1;
    // Grids have test sets of their own: all of them at once are mostly dashes. The one with most numbers comes first.
    const measured = data.grids.map((_, i) => data.cells.filter((c) => c.g === i && c.p >= 0).length);
    const first = data.grids.length > 1 ? String(measured.indexOf(Math.max(...measured))) : "";
    const initial = {
      selection: "source_val", level: "video", metric: "auc", rows: manySeeds ? "mean" : "seed", grid: first, detector: "", optimizer: "",
      protocol: "", store: "", beside: "1", unrun: "1", off: "", sort: "", dir: "",
    };
    let state = { ...initial, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) };
    for (const [id, pairs] of Object.entries(options)) {
      $(id).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
      if (!pairs.some(([value]) => value === state[id])) state[id] = initial[id];
      if (pairs.length <= 2 && pairs[0][0] === "") $(id).parentElement.hidden = true;  // nothing to choose from
    }
    const boxes = data.tests.map((test, i) => {
      const label = el("label");
      const box = el("input");
      box.type = "checkbox";
      box.value = i;
      label.append(box, ` ${test.title} `, el("span", "by", test.role));
      $("tests").append(label);
      return box;
    });
    const selects = ["selection", "level", "metric", "rows", "grid", "detector", "optimizer", "protocol", "store"];
    const show = () => {
      for (const id of selects) $(id).value = state[id];
      $("beside").checked = state.beside === "1";
      $("unrun").checked = state.unrun === "1";
      const off = new Set(state.off.split("."));
      boxes.forEach((box, i) => { box.checked = !off.has(String(i)); });
      draw();
      const changed = Object.entries(state).filter(([key, value]) => value !== initial[key]);
      const hash = new URLSearchParams(changed).toString();
      try { history.replaceState(null, "", hash ? `#${hash}` : location.pathname); } catch { /* some browsers forbid it for files */ }
    };
    for (const id of selects) $(id).addEventListener("change", () => { state[id] = $(id).value; show(); });
    for (const id of ["beside", "unrun"]) $(id).addEventListener("change", () => { state[id] = $(id).checked ? "1" : "0"; show(); });
    $("tests").addEventListener("change", () => {
      state.off = boxes.flatMap((box, i) => (box.checked ? [] : [i])).join(".");
      show();
    });
    $("reset").addEventListener("click", () => { state = { ...initial }; show(); });
    $("filters").addEventListener("submit", (event) => event.preventDefault());

    const place = () => {
      const s = data.selections.findIndex((x) => x.name === state.selection);
      const l = data.levels.indexOf(state.level);
      const m = data.metrics.findIndex((x) => x.name === state.metric);
      return (s * levels + l) * metrics + m;
    };
    const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;
    const spread = (xs) => { const m = mean(xs); return Math.sqrt(xs.reduce((a, x) => a + (x - m) ** 2, 0) / (xs.length - 1)); };

    /* Rows of what the filters leave: {d, o, grid, part, protocol, cells}. Seeds of one protocol are one row in the mean. */
    function groups() {
      const found = new Map();
      for (const c of data.cells) {
        if (state.grid && String(c.g) !== state.grid) continue;
        if (state.detector && c.d !== state.detector) continue;
        if (state.optimizer && c.o !== state.optimizer) continue;
        if (state.protocol && String(c.p) !== state.protocol) continue;
        if (state.unrun !== "1" && c.p < 0) continue;
        const key = JSON.stringify([c.g, c.part, c.d, c.o, state.rows === "seed" ? c.s : ""]);
        if (!found.has(key)) found.set(key, []);
        found.get(key).push(c);
      }
      const rows = [];
      for (const cells of found.values()) {
        const protocols = [...new Set(cells.map((c) => c.p).filter((p) => p >= 0))];
        for (const p of protocols.length ? protocols : [-1]) {
          // Cells that were not run go to the first protocol of their row, so that "2 of 3 seeds" is said once.
          const own = cells.filter((c) => c.p === p || (c.p < 0 && p === (protocols[0] ?? -1)));
          rows.push({ d: own[0].d, o: own[0].o, g: own[0].g, part: own[0].part, p, cells: own });
        }
      }
      return rows;
    }

    function value(row, test, at) {
      const values = [], why = new Set();
      for (const c of row.cells) {
        const found = c.p < 0 ? c.why : c.v[test] ? c.v[test][at] : undefined;
        if (found === undefined) why.add("not in this cell’s test sets");
        else if (found < 0) why.add(data.reasons[-1 - found]);
        else values.push(found);
      }
      return { values, why: [...why] };
    }

    function draw() {
      const began = performance.now();
      const at = place();
      const metric = data.metrics.find((m) => m.name === state.metric);
      const selection = data.selections.find((s) => s.name === state.selection);
      const rows = groups();
      const used = new Set(rows.flatMap((r) => r.cells.flatMap((c) => Object.keys(c.v))));
      const tests = data.tests.map((_, i) => i).filter((i) => boxes[i].checked && used.has(String(i)) && (!state.store || data.tests[i].store === state.store));
      const scale = metric.percent ? 100 : 1, digits = metric.percent ? 2 : 3;
      for (const row of rows) row.values = new Map(tests.map((t) => [t, value(row, t, at)]));

      const sortable = ["d", "o", "grid", ...tests.map(String)];
      const sort = sortable.includes(state.sort) ? state.sort : "";
      const low = metric.low;
      const dir = state.dir || (["d", "o", "grid"].includes(sort) || low ? "ascending" : "descending");
      const key = (row) => {
        if (sort === "d" || sort === "o") return row[sort];
        if (sort === "grid") return `${data.grids[row.g]} ${row.part}`;
        const { values } = row.values.get(Number(sort));
        return values.length ? mean(values) : null;
      };
      const order = (list, of) => {
        const keyed = list.map((row) => [of(row), row]);
        keyed.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);  // what has no number is last either way
          const c = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
          return dir === "ascending" ? c : -c;
        });
        return keyed.map(([, row]) => row);
      };
      const shown = sort ? order(rows, key) : rows;

      const notes = [];
      const mark = (reason) => {
        if (!notes.includes(reason)) notes.push(reason);
        return letters(notes.indexOf(reason));
      };
      const oneGrid = new Set(rows.map((r) => `${r.g}/${r.part}`)).size < 2;
      const oneProtocol = new Set(rows.filter((r) => r.p >= 0).map((r) => r.p)).size < 2;
      head(tests, sort, dir, oneGrid, oneProtocol);
      $("board").classList.toggle("oracle", selection.oracle);

      const body = document.createDocumentFragment();
      for (const row of shown) {
        const tr = el("tr");
        const name = el("th", "", row.d);
        name.scope = "row";
        const seeds = el("td", "seeds");
        for (const c of row.cells) {
          const link = el("a", "", String(c.s));
          link.href = c.page;
          link.setAttribute("aria-label", `${c.d}, ${c.o}, seed ${c.s}: the cell’s page`);
          seeds.append(link, " ");
        }
        if (row.cells.some((c) => c.doubt)) {
          seeds.append(el("span", "tag doubt", "in doubt"), el("sup", "", mark(row.cells.find((c) => c.doubt).doubt)));
        }
        tr.append(name, el("td", "", row.o), seeds);
        for (const t of tests) tr.append(number(row.values.get(t), row.cells.length, scale, digits, mark));
        if (!oneGrid) tr.append(el("td", "prot", [data.grids[row.g], row.part].filter(Boolean).join(" / ")));
        if (!oneProtocol) tr.append(el("td", "prot", row.p < 0 ? "–" : data.protocols[row.p].label));
        body.append(tr);
      }
      $("measured").replaceChildren(body);
      const printed = papers(rows, tests, metric, sort, order, oneGrid, oneProtocol);
      $("notes").replaceChildren(...notes.map((n, i) => {
        const li = el("li");
        li.append(el("sup", "", letters(i)), ` ${n}`);
        return li;
      }));
      const missing = rows.filter((r) => r.p < 0).length;
      $("status").textContent = `${rows.length} row${rows.length === 1 ? "" : "s"}${missing ? `, ${missing} without a number` : ""}; ${metric.title} at ${state.level} level, checkpoint ${selection.label}${printed ? `; ${printed} row${printed === 1 ? "" : "s"} from papers` : ""}.`;
      $("testsummary").textContent = `Test sets: ${tests.length} of ${data.tests.length} shown`;
      $("oracle").hidden = !selection.oracle;
      $("oracle").textContent = selection.oracle ? `Oracle: ${selection.sentence.replace(/; ORACLE: it/, ". It")}. Do not compare with rows chosen otherwise.` : "";
      $("mixed").hidden = oneProtocol;
      $("mixed").textContent = oneProtocol ? "" : "The rows were trained under different protocols; choose one under Protocol before comparing.";
      warn(shown);
      $("papernote").hidden = !printed;
      $("protocolwords").textContent = [...new Set(rows.map((r) => r.p).filter((p) => p >= 0))].map((p) => `${data.protocols[p].label}: ${data.protocols[p].words}.`).join(" ");
      document.documentElement.dataset.drawn = (performance.now() - began).toFixed(1);
    }

    /* What the records of the shown cells say against their own numbers, the most common first. */
    function warn(shown) {
      const counts = new Map();
      const cells = shown.flatMap((r) => r.cells);
      for (const c of cells) for (const w of c.w) counts.set(w, (counts.get(w) || 0) + 1);
      const most = [...counts].sort(([, a], [, b]) => b - a);
      const lines = most.slice(0, 3).map(([w, n]) => `${n} of ${cells.length} cells: ${data.warnings[w]}.`);
      if (most.length > 3) lines.push(`${most.length - 3} more warnings stand on the cells’ pages.`);
      $("warnings").hidden = !lines.length;
      $("warnings").replaceChildren(...lines.map((line) => el("li", "", line)));
    }

    function number({ values, why }, wanted, scale, digits, mark) {
      const td = el("td", "num");
      if (!values.length) {
        td.append(el("span", "none", "–"), el("sup", "", why.map(mark).join(" ")));
        return td;
      }
      td.append((scale * mean(values)).toFixed(digits));
      if (values.length > 1) td.append(el("span", "pm", ` ± ${(scale * spread(values)).toFixed(digits)}`));
      if (values.length < wanted) td.append(el("sup", "", mark(`over ${values.length} of ${wanted} seeds: ${why.join("; ")}`)));
      return td;
    }

    function head(tests, sort, dir, oneGrid, oneProtocol) {
      const tr = el("tr");
      const column = (id, title, lines, className) => {
        const th = el("th", className);
        th.scope = "col";
        if (!id) {
          const only = el("button", "", "");
          th.replaceChildren(el("span", "", title));
          th.style.padding = "6px 10px";
          tr.append(th);
          return only;
        }
        const button = el("button");
        button.type = "button";
        button.dataset.sort = id;
        button.append(el("b", "", title), ...lines.filter(Boolean).map((line) => el("small", "", line)));
        if (sort === id) th.setAttribute("aria-sort", dir);
        button.addEventListener("click", () => {
          const first = sort !== id;
          state.sort = id;
          state.dir = first ? "" : dir === "ascending" ? "descending" : "ascending";
          show();
          document.querySelector(`[data-sort="${id}"]`).focus();
        });
        th.append(button);
        tr.append(th);
        return button;
      };
      column("d", "detector", [], "");
      column("o", "optimizer", [], "");
      column("", "seeds", [], "");
      for (const t of tests) column(String(t), data.tests[t].title, [data.tests[t].role], "num");
      if (!oneGrid) column("grid", "grid", [], "");
      if (!oneProtocol) column("", "protocol", [], "");
      document.querySelector("#board thead").replaceChildren(tr);
    }

    function papers(shown, tests, metric, sort, order, oneGrid, oneProtocol) {
      const body = $("reported");
      body.replaceChildren();
      if (state.beside !== "1") return 0;
      const at = (row, t) => (row.v[t] || {})[metric.name];
      const visible = new Set(shown.flatMap((r) => r.cells));
      let rows = data.reported.filter((r) => r.cells.some((i) => visible.has(data.cells[i])) && (!r.level || r.level === state.level) && tests.some((t) => at(r, t) !== undefined));
      if (!rows.length) return 0;
      const key = { d: (r) => r.d || null, o: (r) => r.o || null, grid: (r) => r.source };
      if (sort) rows = order(rows, key[sort] || ((r) => (at(r, sort) === undefined ? null : Number(at(r, sort)))));
      const heading = el("tr", "head");
      const th = el("th");
      th.colSpan = 3 + !oneGrid + !oneProtocol + tests.length;
      th.scope = "rowgroup";
      th.append(el("span", "tag reported", "reported"), " in papers, not measured here");
      heading.append(th);
      body.append(heading);
      for (const row of rows) {
        const tr = el("tr");
        const name = el("th", row.d ? "" : "none", row.d || "not named");
        name.scope = "row";
        tr.append(name, el("td", row.o ? "" : "none", row.o || "not named"), el("td", "source", row.source));
        for (const t of tests) {
          const text = at(row, t);
          const td = el("td", text === undefined ? "num none" : "num", text === undefined ? "" : text);
          tr.append(td);
        }
        if (!oneGrid || !oneProtocol) {
          const rest = el("td");
          rest.colSpan = !oneGrid + !oneProtocol;
          tr.append(rest);
        }
        body.append(tr);
      }
      return rows.length;
    }

    show();
    document.documentElement.dataset.ready = performance.now().toFixed(1);
  });
})();
