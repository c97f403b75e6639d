// FiftyOne 1.22 offers these actions to plugins in JavaScript only: show an open sample, and new fields, as they are now.
(() => {
  const { recoil, __fos__: fos, __foo__: foo } = window;
  const PLUGIN = "@fiftyone-genseg/genseg";
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const until = async (condition, tries) => {
    for (let left = tries; left > 0 && !(await condition()); left--) await pause(100);
  };
  const isOpen = () => document.querySelector("#modal [data-cy=modal]") !== null;

  class ShowSample extends foo.Operator {
    get config() {
      return new foo.OperatorConfig({ name: "show_sample", label: "Show a sample as it is now", unlisted: true });
    }
    useHooks() {
      return { show: fos.useRefreshSample() };
    }
    async execute({ hooks, params }) {
      hooks.show(params.sample);
    }
  }

  // An open sample knows the fields that the grid had when it was opened, so it is opened again.
  let showing = false;
  class ShowField extends foo.Operator {
    get config() {
      return new foo.OperatorConfig({ name: "show_field", label: "Show a new field", unlisted: true });
    }
    useHooks() {
      return {
        reload: fos.useRefresh(),
        follow: fos.useSetModalState(),
        fields: recoil.useRecoilCallback(({ snapshot }) => () => snapshot.getPromise(fos.flatSampleFields), []),
        opened: recoil.useRecoilCallback(({ snapshot }) => () => snapshot.getPromise(fos.modalSelector), []),
        open: recoil.useRecoilCallback(({ set }) => (sample) => set(fos.modalSelector, sample), []),
      };
    }
    async execute({ hooks, params }) {
      if (showing) return; // FiftyOne sends events twice
      showing = true;
      try {
        hooks.reload();
        await until(async () => (await hooks.fields()).some(({ path }) => path === params.field), 100);
        const opened = await hooks.opened(); // which may be another sample than when the answer came
        if (!opened) return;
        await hooks.follow();
        // The App loads a page for each step. A slow step that is overtaken by the next one would undo it.
        hooks.open(null);
        await until(() => !isOpen(), 50);
        hooks.open(opened);
        await until(isOpen, 50);
        if (!isOpen()) hooks.open(opened);
        // Messages to a closed sample are lost, so the panel reads the answers again.
        await until(() => document.querySelector("#modal textarea") !== null, 50);
        if (params.panel_id) foo.executeOperator(`${PLUGIN}/ask_panel#answered`, { panel_id: params.panel_id });
      } finally {
        showing = false;
      }
    }
  }

  for (const operator of [ShowSample, ShowField]) foo.registerOperator(operator, PLUGIN);
})();
