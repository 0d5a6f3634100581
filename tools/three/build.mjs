// Makes web/preview/three.mjs, the part of three.js the live preview uses. In an empty folder with this file and entry.mjs:
//   npm install three@0.187.0 esbuild@0.28.2 && node build.mjs
import { readFile } from "node:fs/promises";
import { build } from "esbuild";

const MARK = /if \( typeof window !== 'undefined' \) \{\s*if \( window\.__THREE__ \) \{[\s\S]*?\n\t\}\s*\n\}/; // three.js writes its version to window

const leaveWindowAlone = {
  name: "leave-window-alone",
  setup({ onLoad }) {
    onLoad({ filter: /three[\\/]build[\\/]three\.(core|module)\.js$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(MARK, ""),
      loader: "js",
    }));
  },
};

await build({
  entryPoints: ["entry.mjs"],
  outfile: "three.mjs",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "inline",
  plugins: [leaveWindowAlone],
});
