// The contact sheet: draws a grid's cells as they develop, and looks back through their steps.
// It runs in two places: on the page, where `ask` reaches the server, and in a sheet saved as one HTML file, where `ask`
// answers from what the file holds. Every text is set as text, never as markup: prompts are strangers' words.
window.Darkroom = window.Darkroom || {};

Darkroom.element = (tag, options = {}, ...children) => {
  const {text, on, data, ...attributes} = options;
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== false) made.setAttribute(name, value);
  for (const [name, value] of Object.entries(data || {})) made.dataset[name] = value;
  for (const [name, handler] of Object.entries(on || {})) made.addEventListener(name, handler);
  if (text !== undefined) made.textContent = text;
  made.append(...children.filter(Boolean));
  return made;
};

Darkroom.pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

// A picture that holds many tiles, ready to be drawn: {src, across, width, height, cells}.
Darkroom.readSprite = async sprite => {
  if (!sprite) return null;
  const image = new Image();
  image.src = sprite.src;
  try { await image.decode(); } catch (error) { return null; }  // a browser short of memory: the next frame may do
  return {...sprite, image};
};

Darkroom.Sheet = class {
  static FRAME = 200;     // milliseconds between two frames: five a second
  static LARGE = false;   // whether pictures are wanted as large as they are, or as tiles and thumbnails
  static ABREAST = 6;     // cells of a grid of one axis in a row: more than these flow into further rows
  static AGAIN = 1000;    // milliseconds until a step is looked at again that not all cells had come to
  static AWAY = 2000;     // milliseconds until a server that did not answer is asked again
  static PLAY = 120;      // milliseconds a step when played back

  constructor(root, ask, tell, presets = []) {
    this.root = root;
    this.ask = async (question, details) => {
      let answer;
      try { answer = await ask(question, details); } catch (error) { /* told below, as what gradio swallows is */ }
      return answer || {error: 'Darkroom does not answer: see whether it still runs, then try again.', away: true};
    };
    this.tell = tell;     // (what, details): something the page around the sheet must do; null in a saved sheet
    this.presets = presets;
    this.key = '';
    this.page = 0;
    this.cells = new Map();
    this.votes = new Map();  // of blind tests, by sheet
    this.films = new Map();
    this.round = 0;       // counts what is opened: answers to an earlier one come too late
    this.loupe = new Darkroom.Loupe(this);
    const wake = () => { if (this.watched && this.woken) this.woken(); };
    document.addEventListener('visibilitychange', wake);
    new IntersectionObserver(wake).observe(root);
    document.addEventListener('keydown', event => { if (event.key === 'Escape' && this.comparing !== undefined) this.awaitSecond(); });
  }

  // Whether somebody can see the sheet: its page in front, its tab chosen.
  get watched() { return !document.hidden && this.root.offsetParent !== null; }

  async open(key) {
    const round = ++this.round;
    const fresh = key !== this.key;
    this.key = key;
    if (fresh) { this.page = 0; this.awaitSecond(); this.lastChosen = undefined; this.loupe.leave(); if (this.blind) this.blind.leave(); }
    this.stopPlaying();
    this.at = 0;
    if (!key) { this.nothing(); return; }
    let plan = await this.ask('sheet', {});
    while (plan.away && round === this.round) {
      this.refuse(plan.error);
      await Darkroom.pause(Darkroom.Sheet.AWAY);
      if (round === this.round) plan = await this.ask('sheet', {});
    }
    if (round !== this.round) return;
    if (plan.error) { this.refuse(plan.error, true); return; }
    const typed = this.typed();
    this.plan = plan;
    this.films = new Map();
    this.states = new Map();
    this.version = -1;
    this.running = this.longest = undefined;
    this.build();
    this.retype(typed);
    this.follow(round);
  }

  // --- What the sheet is made of ---

  nothing() { this.root.replaceChildren(this.welcome()); }

  // There is no sheet, and why; `lost` where there will be none.
  refuse(text, lost) { this.root.replaceChildren(Darkroom.element('p', {class: 'refusal', role: 'alert', text})); }

  welcome() {
    const el = Darkroom.element;
    const chip = ({title, note}) => el('button', {type: 'button', class: 'plain', text: title, title: note, on: {click: () => this.tell('preset', {title})}});
    return el('div', {class: 'sheet-welcome'},
      el('h2', {text: 'Nothing compared yet.'}),
      el('p', {text: 'Choose above what X and Y vary, write their values, and press Compare. All cells develop together. Or begin with one of these:'}),
      el('div', {class: 'chips'}, ...this.presets.map(chip)));
  }

  build() {
    const el = Darkroom.element, {plan} = this;
    this.status = el('p', {class: 'sheet-status', role: 'status'});
    this.stopAll = this.tell && el('button', {type: 'button', class: 'plain', text: 'Stop all', 'data-stop': 'all', on: {click: () => this.stop(plan.cells)}});
    this.meter = el('div', {class: 'known'});
    this.notices = el('p', {class: 'notices', role: 'status'});
    this.grid = el('div', {class: 'sheet-grid', role: 'group', 'aria-label': 'Contact sheet'});
    this.root.replaceChildren(...[
      el('div', {class: 'sheet-line'}, el('p', {class: 'sheet-heading', title: plan.heading, text: plan.heading}), this.status, this.stopAll),
      plan.negative && el('p', {class: 'sheet-negative', title: plan.negative, text: `Negative prompt: ${plan.negative}`}),
      el('div', {class: 'meter', 'aria-hidden': 'true'}, this.meter),
      this.notices,
      this.pager(),
      el('div', {class: 'sheet-scroll'}, this.grid),
      this.tools(),
    ].filter(Boolean));
    this.layOut();
  }

  pager() {
    const labels = this.plan.labels[2], shown = this.plan.shown[2];
    if (labels.length < 2) return null;
    const el = Darkroom.element;
    const pages = labels.map((label, z) => el('button', {
      type: 'button', class: 'plain', 'aria-pressed': String(z === this.page), title: label, text: shown[z],
      on: {click: () => this.turn(z)},
    }));
    this.pages = pages;
    return el('div', {class: 'sheet-pages', role: 'group', 'aria-label': this.plan.titles[2]}, el('span', {text: this.plan.titles[2]}), ...pages);
  }

  turn(z) {
    this.page = z;
    this.pages.forEach((button, i) => button.setAttribute('aria-pressed', String(i === z)));
    this.films = new Map();
    this.layOut();
    for (const [index, state] of this.states) this.show(index, state);
    this.turned = true;
    if (!this.following) this.follow(this.round);
    if (this.at) this.scrub(this.at);
  }

  layOut() {
    const el = Darkroom.element, {plan, grid} = this;
    const [columns, rows] = plan.labels;
    const growing = Boolean(this.tell);
    const head = columns.length > 1 || columns[0] !== '';
    const side = rows.length > 1 || rows[0] !== '';
    const flowing = head && !side && columns.length > Darkroom.Sheet.ABREAST;
    const [width, height] = plan.cells[0].size;
    grid.style.setProperty('--columns', columns.length);
    grid.style.setProperty('--rows', flowing ? Math.ceil(columns.length / Darkroom.Sheet.ABREAST) : rows.length);
    grid.style.setProperty('--ratio', width / height);
    grid.classList.toggle('flowing', flowing);
    grid.classList.toggle('with-side', side);
    grid.classList.toggle('with-more', growing && head);
    grid.replaceChildren();
    this.cells.clear();
    this.labels = [];
    const [columnNames, rowNames] = plan.shown;
    if (head && !side) grid.append(el('div', {class: 'axis-title', text: plan.titles[0]}));
    const add = (axis, title) => growing && title ? this.adder(axis, title) : null;
    if (flowing) {
      columns.forEach((label, x) => grid.append(el('div', {class: 'captioned'}, this.place(x, 0), this.label('column', plan.titles[0], label, columnNames[x], place => place[0] === x))));
      if (growing) grid.append(el('div', {class: 'more-space'}, add('x', plan.titles[0])));
      return;
    }
    if (head) {
      if (side) grid.append(el('div', {class: 'corner'}, el('span', {class: 'corner-x', text: plan.titles[0]}), el('span', {class: 'corner-y', text: plan.titles[1]})));
      columns.forEach((label, x) => grid.append(this.label('column', plan.titles[0], label, columnNames[x], place => place[0] === x)));
      if (growing) grid.append(el('div', {class: 'more-column'}, add('x', plan.titles[0])));
    }
    rows.forEach((label, y) => {
      if (side) grid.append(this.label('row', plan.titles[1], label, rowNames[y], place => place[1] === y));
      columns.forEach((_, x) => grid.append(this.place(x, y)));
      if (growing && head) grid.append(el('div', {class: 'more-space'}));
    });
    if (growing && side) grid.append(el('div', {class: 'more-row'}, add('y', plan.titles[1])));
  }

  label(kind, title, text, shown, here) {
    const el = Darkroom.element;
    const cells = () => this.plan.cells.filter(cell => cell.place[2] === this.page && here(cell.place));
    const stop = this.tell && el('button', {
      type: 'button', class: 'stop-some', title: `Stop this ${kind}`, 'aria-label': `Stop ${title} ${text}`, text: '✕', on: {click: () => this.stop(cells())},
    });
    const node = el('div', {class: `label ${kind}`, title: `${title}: ${text}`}, el('span', {text: shown}), stop);
    this.labels.push([node, cells]);
    return node;
  }

  adder(axis, title) {
    const el = Darkroom.element;
    const field = el('input', {type: 'text', placeholder: '+', title: `Add values to ${title}: only the new cells are made`, 'aria-label': `Add values to ${title}`, data: {axis}});
    const send = () => { if (field.value.trim()) { this.sent = axis; this.tell('add', {axis, values: field.value.trim()}); } };
    // A field of one line would run pasted lines together; each is a value.
    field.addEventListener('paste', event => {
      const lines = event.clipboardData.getData('text/plain').split(/[\r\n]+/).map(line => line.trim()).filter(Boolean);
      if (lines.length < 2) return;
      event.preventDefault();
      field.setRangeText(lines.join(' || '), field.selectionStart, field.selectionEnd, 'end');
    });
    field.addEventListener('keydown', event => { if (event.key === 'Enter') { event.preventDefault(); send(); } });
    return field;
  }

  // What is being typed at the edges outlives the sheet's being built anew, as it is when it has grown.
  typed() {
    const fields = [...this.root.querySelectorAll('input[data-axis]')];
    return {values: fields.map(field => [field.dataset.axis, field.value]), axis: fields.includes(document.activeElement) ? document.activeElement.dataset.axis : ''};
  }

  retype({values, axis}) {
    for (const [name, value] of values) {
      const field = this.root.querySelector(`input[data-axis="${name}"]`);
      if (field && name !== this.sent) field.value = value;  // what was added is in the sheet now
      if (field && name === axis) field.focus();
    }
    this.sent = undefined;
  }

  place(x, y) {
    const el = Darkroom.element;
    const cell = this.plan.cells.find(one => one.place[0] === x && one.place[1] === y && one.place[2] === this.page);
    if (!cell) return el('div', {class: 'cell missing'});
    const [width, height] = cell.size;
    const parts = {
      canvas: el('canvas'), image: el('img', {alt: '', draggable: 'true', hidden: ''}), message: el('p', {class: 'cell-message', hidden: ''}),
      mark: el('span', {class: 'mark', hidden: ''}), bar: el('span', {class: 'cell-bar'}),
    };
    const stop = this.tell && el('button', {
      type: 'button', class: 'stop-one', title: 'Stop this cell', 'aria-label': `Stop ${cell.name}`, text: '✕',
      on: {click: event => { event.stopPropagation(); this.stop([cell]); }},
    });
    const node = el('div', {
      class: 'cell', role: 'button', tabindex: '0', style: `aspect-ratio: ${width} / ${height}`, 'aria-label': cell.name,
      data: {cell: cell.index, state: 'waiting'},
      on: {
        click: event => this.choose(cell, event),
        keydown: event => {
          if (event.target !== event.currentTarget || (event.key !== 'Enter' && event.key !== ' ')) return;
          event.preventDefault();
          this.choose(cell, event);
        },
      },
    }, parts.canvas, parts.image, parts.message, parts.mark, stop, el('span', {class: 'cell-track'}, parts.bar));
    this.cells.set(cell.index, {node, ...parts, cell});
    return node;
  }

  tools() {
    const el = Darkroom.element;
    this.slider = el('input', {type: 'range', min: '1', max: '1', value: '1', 'aria-label': 'Step shown', class: 'scrubber'});
    this.slider.addEventListener('input', () => { this.stopPlaying(); this.scrub(Number(this.slider.value)); });
    this.where = el('output', {class: 'scrub-where'});
    this.play = el('button', {type: 'button', class: 'plain play', text: '▶', title: 'Play the steps', 'aria-label': 'Play the steps', on: {click: () => this.togglePlaying()}});
    const take = (kind, text, title) => el('button', {type: 'button', class: 'plain', text, title, data: {take: kind}, on: {click: event => this.take(kind, event.currentTarget)}});
    return el('div', {class: 'sheet-tools'},
      el('div', {class: 'scrub'}, this.play, this.slider, this.where),
      this.tell && el('div', {class: 'sheet-takes'},
        el('button', {type: 'button', class: 'plain blind-start', text: 'Blind test', title: 'Pick the better of two, labels hidden', on: {click: () => { this.blind = new Darkroom.Blind(this); this.blind.begin(); }}}),
        el('span', {class: 'takes-name', text: 'Save:'}),
        take('png', 'Sheet', 'The sheet as one PNG; dropped here again it restores the grid'),
        take('zip', 'Cells', 'Every picture with its settings, and a table of them'),
        take('html', 'Page', 'One HTML file with the scrubber, to send to somebody'),
        take('webp', 'Film', 'The sheet developing, as an animated WebP'),
        take('ipynb', 'Notebook', 'A Jupyter notebook that draws the sheet by diffusers alone'),
      ),
    );
  }

  // --- Following a run ---

  // One loop for each opening. It ends with the run, or when something else is opened.
  async follow(round) {
    this.following = true;
    while (round === this.round) {
      if (!this.watched) { await new Promise(resolve => { this.woken = resolve; }); continue; }
      const {page, turned} = this;
      this.turned = false;
      const answer = await this.ask('frame', {seen: this.version, page, turned: Boolean(turned), large: this.constructor.LARGE});
      if (round !== this.round) return;
      if (answer.error) this.say(answer.error, !answer.away);
      else if (answer.count !== this.plan.cells.length) { this.open(this.key); return; }
      else {
        if (answer.version !== undefined) await this.update(answer, round, page);
        if (round !== this.round) return;
        this.setRunning(!answer.done);
      }
      if ((answer.done && !this.turned) || (answer.error && !answer.away)) break;
      // The next frame is asked for once this one is drawn: a slow browser gets fewer frames, never a queue of them.
      await Darkroom.pause(answer.away ? Darkroom.Sheet.AWAY : this.constructor.FRAME);
    }
    if (round === this.round) this.following = false;
  }

  say(text) { this.status.textContent = text; }

  setRunning(running) {
    if (this.running === running) return;
    this.running = running;
    this.extent();
    this.root.classList.toggle('running', running);
    if (this.stopAll) this.stopAll.hidden = !running;
    if (this.tell) this.tell('state', {running});
  }

  async update(answer, round, page) {
    const sprite = await Darkroom.readSprite(answer.sprite);
    if (round !== this.round) return;
    this.version = answer.version;
    this.status.textContent = answer.status;
    this.told = answer.notices;
    if (this.comparing === undefined) this.notices.textContent = this.told;
    this.notices.title = this.told;
    this.meter.style.width = `${answer.percent}%`;
    this.meter.className = answer.unknown ? 'unknown' : 'known';
    for (const state of answer.cells) {
      this.states.set(state.index, {...(this.states.get(state.index) || {}), ...state});
      this.show(state.index, this.states.get(state.index));
    }
    if (sprite && !this.at && page === this.page) this.draw(sprite);
    this.extent();
    // More cells may have come to the step that is looked at; but looking back must not cost more than watching does.
    if (this.at && !this.films.has(this.at) && performance.now() - this.filmed > Darkroom.Sheet.AGAIN) this.scrub(this.at);
    for (const [node, cells] of this.labels) node.classList.toggle('ended', cells().every(cell => this.ended(cell.index)));
    if (this.loupe.opened) this.loupe.refresh(answer.cells);
  }

  ended(index) {
    const state = this.states.get(index);
    return Boolean(state && ['finished', 'stopped', 'failed'].includes(state.state));
  }

  show(index, state) {
    const here = this.cells.get(index);
    if (!here) return;
    here.node.dataset.state = state.state;
    here.bar.style.width = `${state.total ? 100 * state.step / state.total : 0}%`;
    if (state.src && here.image.getAttribute('src') !== state.src) here.image.src = state.src;
    here.image.hidden = !state.src || Boolean(this.at && here.scrubbed);
    here.message.hidden = !state.message;
    here.message.textContent = state.message || '';
    here.mark.hidden = !state.mark;
    here.mark.textContent = state.mark || '';
    here.node.setAttribute('aria-label', `${here.cell.name}: ${state.state}`);
  }

  draw(sprite) {
    sprite.cells.forEach((index, place) => {
      const here = this.cells.get(index);
      if (!here) return;
      const {canvas} = here, {width, height} = sprite;
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      const pen = canvas.getContext('2d');
      pen.drawImage(sprite.image, place % sprite.across * width, Math.floor(place / sprite.across) * height, width, height, 0, 0, width, height);
      here.node.classList.add('drawn');
    });
  }

  async stop(cells) {
    const open = cells.map(cell => cell.index).filter(index => !this.ended(index));
    if (open.length) await this.ask('stop', {cells: open});
  }

  // --- Looking back ---

  // The longest run there is on this page; the others are shown at the same part of theirs.
  extent() {
    const totals = this.plan.cells.filter(cell => cell.place[2] === this.page).map(cell => (this.states.get(cell.index) || {}).total || 0);
    const longest = Math.max(1, ...totals);
    if (this.longest !== longest) {
      this.longest = longest;
      this.slider.max = String(longest);
      if (!this.at) this.slider.value = String(longest);
    }
    this.slider.disabled = longest < 2;
    this.play.disabled = longest < 2 || this.running !== false;
    if (!this.at) this.where.textContent = longest < 2 ? '' : `${longest} steps`;
  }

  async film(at) {
    const {films} = this;
    if (films.has(at)) return films.get(at);
    this.filmed = performance.now();
    const answer = await this.ask('film', {page: this.page, at, longest: this.longest});
    const film = answer.error ? null : {sprite: await Darkroom.readSprite(answer.sprite), whole: answer.whole};
    if (film && film.whole) films.set(at, film);  // while it runs, the same place shows more a moment later
    return film;
  }

  async scrub(at) {
    this.at = at >= this.longest ? 0 : at;  // at the end the pictures themselves are shown
    this.slider.value = String(at);
    this.where.textContent = `step ${at} of ${this.longest}`;
    const {films} = this;
    if (this.filming === films) return;     // the look that is under way goes on to where the hand is by then
    this.filming = films;
    let asked, film;
    do {
      asked = this.at;
      film = asked ? await this.film(asked) : null;
      if (films !== this.films) return;     // another sheet or page is shown by now
    } while (asked !== this.at);
    this.filming = null;
    const shown = new Set(film && film.sprite ? film.sprite.cells : []);
    for (const [index, here] of this.cells) {
      here.scrubbed = shown.has(index);
      here.node.classList.toggle('scrubbed', here.scrubbed);
      const state = this.states.get(index);
      here.image.hidden = here.scrubbed || !(state && state.src);
    }
    if (film && film.sprite) this.draw(film.sprite);
    this.root.dataset.at = String(asked || this.longest);
    if (this.loupe.opened) this.loupe.drawStep();
  }

  togglePlaying() { if (this.playing) this.stopPlaying(); else this.startPlaying(); }

  async startPlaying() {
    const token = this.playing = {};
    this.play.textContent = '❚❚';
    this.play.setAttribute('aria-label', 'Pause');
    for (let at = this.at && this.at < this.longest ? this.at : 1; this.playing === token; at = at % this.longest + 1) {
      const began = performance.now();
      await this.scrub(at);
      const pause = at === this.longest ? 1000 : Darkroom.Sheet.PLAY;
      await Darkroom.pause(Math.max(0, pause - (performance.now() - began)));
    }
  }

  stopPlaying() {
    this.playing = null;
    if (!this.play) return;
    this.play.textContent = '▶';
    this.play.setAttribute('aria-label', 'Play the steps');
  }

  // --- Going on ---

  choose(cell, event) {
    const first = this.comparing;
    this.awaitSecond();
    if (first === cell.index) return;
    if (first !== undefined) this.loupe.compare(first, cell.index);
    else if (event.shiftKey && this.lastChosen !== undefined && this.lastChosen !== cell.index) this.loupe.compare(this.lastChosen, cell.index);
    else this.loupe.look(cell.index);
    this.lastChosen = cell.index;
  }

  // After "Compare with ...": the next cell that is clicked is the other side. Without a cell, as by Escape: that is over.
  awaitSecond(index) {
    this.comparing = index;
    for (const [other, here] of this.cells) here.node.classList.toggle('chosen', other === index);
    this.root.classList.toggle('choosing', index !== undefined);
    if (this.notices) this.notices.textContent = index === undefined ? this.told || '' : 'Click the cell to compare with; Esc cancels.';
  }

  async take(kind, button) {
    const text = button.textContent;
    button.disabled = true;
    button.textContent = '...';
    const answer = await this.ask('take', {kind, page: this.page});
    button.disabled = false;
    button.textContent = text;
    if (answer.error) this.notices.textContent = answer.error;
    else Darkroom.element('a', {href: answer.url, download: answer.name}).click();
    if (answer.notice) this.notices.textContent = answer.notice;
  }
};
