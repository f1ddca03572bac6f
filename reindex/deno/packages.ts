/**
 * The npm packages that modules in the sandbox may import by name. The sandbox is the Worker that
 * runs card code. The only other name that can be imported is `@realm/base`.
 */
import * as markdownIt from "markdown-it";
import * as preact from "preact";
import * as jsxRuntime from "preact/jsx-runtime";
import * as renderToString from "preact-render-to-string";

export type Exports = Record<string, unknown>;

/**
 * The packages for the card library. The card library is part of this server, so it may import
 * packages that card modules may not import.
 */
export const forLibrary: Record<string, Exports> = {
  "markdown-it": markdownIt,
  "preact": preact,
  "preact/jsx-runtime": jsxRuntime,
  "preact-render-to-string": renderToString,
};

/**
 * The packages for card modules. Preact's `options` is left out, because a module could use it to
 * change the rendering of every card. Functions that need a browser are left out, too.
 */
export const forCards: Record<string, Exports> = {
  "preact": {
    Component: preact.Component,
    Fragment: preact.Fragment,
    cloneElement: preact.cloneElement,
    createContext: preact.createContext,
    createElement: preact.createElement,
    createRef: preact.createRef,
    h: preact.h,
    isValidElement: preact.isValidElement,
    toChildArray: preact.toChildArray,
  },
  "preact/jsx-runtime": { ...jsxRuntime },
};
