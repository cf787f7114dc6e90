// @strudel/core imports '@kabelsalat/web', whose "main" is a script for browsers that Node takes for an ES module.
// Point the import at the package's "module" file, as bundlers do.
export async function resolve(specifier, context, nextResolve) {
  const found = await nextResolve(specifier, context);
  if (specifier !== '@kabelsalat/web') return found;
  return { ...found, url: new URL('index.mjs', found.url).href, format: 'module' };
}
