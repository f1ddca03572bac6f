/** The npm packages that modules in the sandbox may import by name. No other bare names exist. */
import * as markdownIt from "markdown-it";
import * as preact from "preact";
import * as jsxRuntime from "preact/jsx-runtime";
import * as renderToString from "preact-render-to-string";

export type Exports = Record<string, unknown>;

/** The packages for the card library, which is part of this server. */
export const forLibrary: Record<string, Exports> = {
  "markdown-it": markdownIt,
  "preact": preact,
  "preact/jsx-runtime": jsxRuntime,
  "preact-render-to-string": renderToString,
};

/**
 * The packages for card modules. Preact's `options` is left out, because it could change the
 * rendering of every card. Functions that need a browser are left out too.
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
