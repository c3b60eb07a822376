// A sheet saved as one file: what the page asks its server is answered from what the file holds.
(() => {
  const held = JSON.parse(document.getElementById('held').textContent);
  const picture = index => held.pictures[index] || '';

  const nearest = (frames, at) => frames.reduce((best, one) => Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best);

  // Of each cell it is known what differs from the first one; [name, the first one's, its own].
  const changes = (a, b) => {
    const rows = new Map();
    for (const [name, first, own] of held.changes[a]) rows.set(name, [name, own, first]);
    for (const [name, first, own] of held.changes[b]) rows.set(name, [name, rows.has(name) ? rows.get(name)[1] : first, own]);
    return [...rows.values()].filter(([, one, other]) => one !== other);
  };

  const fileName = (name, src) => src.startsWith('data:image/jpeg') ? name.replace(/\.png$/, '.jpg') : name;

  const answers = {
    sheet: () => held.sheet,
    frame: ({page}) => ({
      count: held.sheet.cells.length, done: true, version: 0, status: held.status, notices: '', percent: 100, unknown: false,
      cells: held.states.map(state => ({...state, src: picture(state.index)})), sprite: held.sprites[page],
    }),
    film: ({page, at}) => ({sprite: held.films[page].length ? nearest(held.films[page], at).sprite : null, whole: true}),
    look: ({cell}) => ({...held.looks[cell], src: picture(cell), file: fileName(held.looks[cell].file, picture(cell))}),
    pair: ({a, b}) => picture(a) && picture(b)
      ? {a: picture(a), b: picture(b), changes: changes(a, b), heat: '', figures: ''}
      : {error: 'Only two cells that have a picture can be compared.'},
  };

  document.body.classList.toggle('dark', matchMedia('(prefers-color-scheme: dark)').matches);
  const sheet = new Darkroom.Sheet(document.querySelector('.sheet'), async (question, details) => answers[question](details), null);
  sheet.open('saved');
})();
