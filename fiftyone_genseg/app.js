// What FiftyOne 1.22 offers to plugins in JavaScript only: to show an open sample, and new fields, as they are now.
(() => {
  const { recoil, __fos__: fos, __foo__: foo } = window;
  const PLUGIN = "@fiftyone-genseg/genseg";
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

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
        for (let tries = 0; tries < 100; tries++) {
          await pause(100);
          if ((await hooks.fields()).some(({ path }) => path === params.field)) break;
        }
        const opened = await hooks.opened();
        if (!opened) return;
        await hooks.follow();
        hooks.open(null);
        await pause(100);
        hooks.open(opened);
      } finally {
        showing = false;
      }
    }
  }

  for (const operator of [ShowSample, ShowField]) foo.registerOperator(operator, PLUGIN);
})();
