// Look closer: one cell large with its settings and neighbours, or two cells against each other.
Darkroom.Loupe = class {
  static FLICKER = 500;   // milliseconds each picture is shown

  constructor(sheet) { this.sheet = sheet; }

  get opened() { return Boolean(this.dialog && this.dialog.open); }

  // --- The window both share ---

  show(name, ...children) {
    const el = Darkroom.element;
    if (!this.dialog) {
      this.dialog = el('dialog', {class: 'loupe', tabindex: '-1', on: {close: () => this.closed(), click: event => { if (event.target === this.dialog) this.dialog.close(); }}});
      this.dialog.addEventListener('keydown', event => this.key(event));
      this.sheet.root.after(this.dialog);
    }
    const close = el('button', {type: 'button', class: 'loupe-close', 'aria-label': 'Close', text: '✕', on: {click: () => this.dialog.close()}});
    this.dialog.setAttribute('aria-label', name);
    this.dialog.replaceChildren(close, ...children.filter(Boolean));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.focus();  // the button that had it is gone, and with it the arrow keys would be
  }

  leave() { if (this.opened) this.dialog.close(); }

  closed() {
    clearInterval(this.flicker);
    const here = this.sheet.cells.get(this.index);
    this.index = undefined;
    this.pair = undefined;
    if (here) here.node.focus({preventScroll: true});
  }

  key(event) {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!step || this.index === undefined || event.target.matches('input')) return;
    event.preventDefault();
    this.go(...step);
  }

  go(across, down) {
    const [x, y, z] = this.cell(this.index).place;
    const next = this.sheet.plan.cells.find(one => one.place[0] === x + across && one.place[1] === y + down && one.place[2] === z);
    if (next) this.look(next.index);
  }

  cell(index) { return this.sheet.plan.cells.find(one => one.index === index); }

  // --- One cell ---

  async look(index) {
    const el = Darkroom.element, {sheet} = this;
    this.index = index;
    this.pair = undefined;
    clearInterval(this.flicker);
    const answer = await sheet.ask('look', {cell: index});
    if (this.index !== index) return;
    if (answer.error) { this.show('Not shown', el('p', {class: 'refusal', role: 'alert', text: answer.error})); return; }
    const cell = this.cell(index);
    this.large = el('img', {alt: cell.name, hidden: answer.src ? false : ''});
    if (answer.src) this.large.src = answer.src;
    this.step = el('canvas', {hidden: ''});
    this.stepName = el('span', {class: 'loupe-step', hidden: ''});
    const act = (what, text, title, usable = true) => el('button', {type: 'button', class: 'plain', text, title, data: {act: what}, disabled: usable ? false : '', on: {click: () => this.act(what, index)}});
    const neighbours = (answer.neighbours || []).map(one => el('li', {},
      el('span', {class: 'where', text: one.where}),
      el('button', {type: 'button', class: 'link', text: one.changes.map(([name, mine, other]) => `${name} ${other}`).join(', ') || 'the same settings', on: {click: () => this.look(one.cell)}}),
      el('button', {type: 'button', class: 'link', text: 'compare', on: {click: () => this.compare(index, one.cell)}}),
    ));
    this.show(cell.name,
      el('div', {class: 'loupe-picture', style: `--ratio: ${cell.size[0] / cell.size[1]}`}, this.large, this.step, this.stepName, answer.src ? null : el('p', {class: 'cell-message', text: answer.message || 'Nothing to see yet.'})),
      el('div', {class: 'loupe-side'},
        el('h2', {text: cell.name}),
        el('p', {class: 'loupe-state', text: answer.status || ''}),
        el('pre', {class: 'loupe-settings', text: answer.settings}),
        neighbours.length ? el('h3', {text: 'What differs next to it'}) : null,
        el('ul', {class: 'neighbours'}, ...neighbours),
        el('div', {class: 'loupe-acts'},
          sheet.tell && act('use', 'Use these settings', 'Take this cell to Generate'),
          sheet.tell && act('zoom', 'Zoom in here', 'A finer grid around this cell'),
          act('with', 'Compare with ...', 'Then click another cell'),
          answer.src && el('a', {class: 'plain', href: answer.src, download: answer.file || '', text: (answer.file || '').endsWith('.jpg') ? 'Download JPEG' : 'Download PNG'}),
          sheet.tell && !sheet.ended(index) && act('stop', 'Stop this cell', 'Keep what it has become'),
        ),
      ),
    );
    this.drawStep();
  }

  act(what, index) {
    if (what === 'stop') { this.sheet.stop([this.cell(index)]); return; }
    this.dialog.close();
    if (what === 'with') this.sheet.awaitSecond(index);
    else this.sheet.tell(what, {cell: index});
  }

  // The step the scrubber is at, large; it comes from the sheet's own tile.
  drawStep() {
    if (this.index === undefined || !this.step) return;
    const here = this.sheet.cells.get(this.index);
    const state = this.sheet.states.get(this.index) || {};
    const drawn = here && (here.scrubbed || !state.src) && here.node.classList.contains('drawn');
    this.step.hidden = !drawn;
    this.stepName.hidden = !here || !here.scrubbed;
    this.stepName.textContent = this.sheet.where.textContent;
    this.large.hidden = Boolean(drawn) || !this.large.getAttribute('src');
    if (!drawn) return;
    this.step.width = here.canvas.width;
    this.step.height = here.canvas.height;
    this.step.getContext('2d').drawImage(here.canvas, 0, 0);
  }

  refresh(changed) {
    if (this.index === undefined || this.pair) return;
    if (changed.some(state => state.index === this.index && ['finished', 'stopped', 'failed'].includes(state.state))) this.look(this.index);
    else this.drawStep();
  }

  // --- Two cells ---

  async compare(a, b) {
    const el = Darkroom.element;
    clearInterval(this.flicker);
    this.index = undefined;
    this.pair = [a, b];
    const answer = await this.sheet.ask('pair', {a, b});
    if (!this.pair || this.pair[0] !== a || this.pair[1] !== b) return;
    if (answer.error) { this.show('Not compared', el('p', {class: 'refusal', role: 'alert', text: answer.error})); return; }
    const ratio = this.cell(a).size[0] / this.cell(a).size[1];
    const view = el('div', {class: 'versus', style: `--ratio: ${ratio}; --cut: 50%`});
    const ways = {slider: 'Slider', sides: 'Side by side', flicker: 'Flicker', ...(answer.heat ? {heat: 'Difference'} : {})};
    const buttons = Object.entries(ways).map(([way, text]) => el('button', {type: 'button', class: 'plain', text, data: {way}, on: {click: () => choose(way)}}));
    const choose = way => {
      clearInterval(this.flicker);
      buttons.forEach(button => button.setAttribute('aria-pressed', String(button.dataset.way === way)));
      view.dataset.way = way;
      this.arrange(view, way, answer);
    };
    this.show('Two cells against each other',
      el('div', {class: 'loupe-picture', style: `--ratio: ${ratio}`}, view),
      el('div', {class: 'loupe-side'},
        el('div', {class: 'ways', role: 'group', 'aria-label': 'How to compare'}, ...buttons),
        el('dl', {class: 'versus-names'}, el('dt', {text: 'A'}), el('dd', {text: this.cell(a).name}), el('dt', {text: 'B'}), el('dd', {text: this.cell(b).name})),
        answer.figures ? el('p', {class: 'versus-figures', text: answer.figures}) : null,
        el('table', {class: 'changes'}, el('thead', {}, el('tr', {}, ...['', 'A', 'B'].map(text => el('th', {scope: 'col', text})))), el('tbody', {}, ...answer.changes.map(([name, one, other]) => el('tr', {}, el('th', {scope: 'row', text: name}), el('td', {text: one}), el('td', {text: other}))))),
        el('div', {class: 'loupe-acts'},
          el('button', {type: 'button', class: 'plain', text: 'Swap A and B', on: {click: () => this.compare(b, a)}}),
          el('button', {type: 'button', class: 'plain', text: 'Look at A', on: {click: () => this.look(a)}}),
          el('button', {type: 'button', class: 'plain', text: 'Look at B', on: {click: () => this.look(b)}}),
        ),
      ),
    );
    choose('slider');
  }

  arrange(view, way, {a, b, heat}) {
    const el = Darkroom.element;
    const picture = (src, name) => el('img', {src, alt: name, class: `side-${name.toLowerCase()}`, draggable: 'false'});
    if (way === 'heat') { view.replaceChildren(picture(heat, 'Heat')); return; }
    view.replaceChildren(picture(a, 'A'), picture(b, 'B'), el('span', {class: 'tag tag-a', text: 'A'}), el('span', {class: 'tag tag-b', text: 'B'}));
    if (way === 'slider') {
      const cut = el('input', {type: 'range', min: '0', max: '100', step: '0.5', value: '50', class: 'cut', 'aria-label': 'How much of A is shown'});
      cut.addEventListener('input', () => view.style.setProperty('--cut', `${cut.value}%`));
      view.append(el('span', {class: 'cut-line'}), cut);
    }
    if (way === 'flicker') {
      view.dataset.side = 'a';
      this.flicker = setInterval(() => { view.dataset.side = view.dataset.side === 'a' ? 'b' : 'a'; }, Darkroom.Loupe.FLICKER);
    }
  }
};
