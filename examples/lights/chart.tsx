/**
 * Draws the chart with islands, shoal water, and a link for each light. Also formats positions, and
 * the direction and distance from one light to another.
 *
 * The chart is a square of twenty sea miles at 60° N. So 50 units are one mile (one minute of latitude),
 * and 25 units are one minute of longitude.
 */
import { type CardOf, urlOf } from "@realm/base";
import type { Island } from "./island.tsx";
import type { Light } from "./light.tsx";

export interface Point {
  x: number | null;
  y: number | null;
}

const MILE = 50;
const NAMES = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];

/** A position as text: `60° 15.6′ N, 4° 20.0′ W`. */
export function positionOf({ x, y }: Point): string {
  if (x === null || y === null) return "Not on the chart";
  const north = 60 * 60 + 20 - y / MILE;
  const west = 4 * 60 + 40 - x / (MILE / 2);
  const spell = (minutes: number) =>
    `${Math.floor(minutes / 60)}° ${(minutes % 60).toFixed(1).padStart(4, "0")}′`;
  return `${spell(north)} N, ${spell(west)} W`;
}

/** The direction and distance from one light to another: `NW, 8.3 miles`. */
export function bearingAndDistance(from: Point, to: Point): string {
  if (from.x === null || from.y === null || to.x === null || to.y === null) return "";
  const dx = to.x - from.x;
  const dy = from.y - to.y;
  const degrees = (Math.atan2(dx, dy) * 180 / Math.PI + 360) % 360;
  const miles = Math.hypot(dx, dy) / MILE;
  const name = NAMES[Math.round(degrees / 45) % 8];
  return `${name}, ${miles < 1 ? "under a mile" : `${miles.toFixed(1)} miles`}`;
}

const SOUNDINGS = [
  [60, 260, 61],
  [250, 70, 84],
  [330, 190, 57],
  [640, 70, 72],
  [930, 90, 90],
  [930, 300, 66],
  [900, 430, 48],
  [640, 610, 23],
  [560, 700, 31],
  [430, 800, 38],
  [180, 880, 52],
  [70, 640, 47],
  [240, 300, 35],
  [250, 480, 22],
  [715, 405, 16],
  [830, 780, 44],
  [380, 930, 63],
  [940, 700, 55],
  [60, 930, 70],
  [590, 170, 41],
  [400, 110, 68],
  [150, 700, 33],
  [690, 930, 58],
];

const WATERS: [number, number, string][] = [
  [668, 385, "Brannock Sound"],
  [655, 655, "Selkie Roads"],
  [634, 322, "Firth of Ronsa"],
  [235, 215, "The Western Ocean"],
];

export function Chart({ islands, lights, focus }: {
  islands: CardOf<typeof Island>[];
  lights: CardOf<typeof Light>[];
  /** The left edge, top edge and side of the square to show. By default the whole chart is shown. */
  focus?: [number, number, number];
}) {
  const coasts = islands.filter((island) => island.coast);
  const [left, top, side] = focus ?? [-26, -26, 1052];
  return (
    <svg
      class={`chart ${focus ? "detail" : "whole"}`}
      viewBox={`${left} ${top} ${side} ${side}`}
      role="group"
      aria-label="Chart of the Hestrays with their lights"
    >
      <rect class="deep" x="-26" y="-26" width="1052" height="1052" />
      <g class="graticule" aria-hidden="true">
        {[250, 500, 750].map((at) => <path d={`M${at} 0 V1000 M0 ${at} H1000`} />)}
      </g>
      <g aria-hidden="true">
        {coasts.map((island) => <path class="shoal wide" d={island.coast} />)}
        {coasts.map((island) => <path class="shoal" d={island.coast} />)}
        {coasts.map((island) => <path class="land" d={island.coast} />)}
        <path
          class="rocks"
          d="M196 545l9 9m0-9l-9 9M212 556l8 8m0-8l-8 8M204 562l8 8m0-8l-8 8M686 786l9 9m0-9l-9 9M697 792l9 9m0-9l-9 9M708 798l9 9m0-9l-9 9M655 496l8 8m0-8l-8 8"
        />
        {SOUNDINGS.map(([x, y, depth]) => <text class="sounding" x={x} y={y}>{depth}</text>)}
        {WATERS.map(([x, y, name]) => <text class="water" x={x} y={y}>{name}</text>)}
        {!focus && <Rose />}
      </g>
      {coasts.filter((island) => island.x).map((island) => (
        <a href={urlOf(island)}>
          <text class="place" x={island.x ?? 0} y={island.y ?? 0}>{island.title}</text>
        </a>
      ))}
      {lights.map((light) => <Flare light={light} />)}
      {!focus && <Border />}
    </svg>
  );
}

/** The magenta flare that marks a light on a chart. */
function Flare({ light }: { light: CardOf<typeof Light> }) {
  const side = light.labelSide;
  const dx = side === "w" ? -16 : side === "e" ? 18 : 0;
  const dy = side === "n" ? -34 : side === "s" ? 34 : 8;
  const anchor = side === "w" ? "end" : side === "e" ? "start" : "middle";
  return (
    <a
      href={urlOf(light)}
      class={`flare ${(light.range ?? 0) >= 10 ? "major" : "minor"} ${light.lit ? "on" : "out"}`}
    >
      <title>{`${light.title}: ${light.character}`}</title>
      <g transform={`translate(${light.x} ${light.y})`}>
        <circle class="hit" r="20" />
        <path class="drop" d="M3 -3 C10 -26 30 -30 34 -26 C36 -20 26 -6 3 -3Z" />
        <path class="star" d="M0 -7L2 -2L7 0L2 2L0 7L-2 2L-7 0L-2 -2Z" />
        {side && <text x={dx} y={dy} text-anchor={anchor}>{light.title}</text>}
      </g>
    </a>
  );
}

function Rose() {
  const ticks = Array.from({ length: 36 }, (_, index) => index * 10);
  return (
    <g class="rose" transform="translate(872 868)">
      <circle r="84" />
      <circle r="70" />
      {ticks.map((angle) => (
        <line y1={angle % 30 ? -78 : -70} y2="-84" transform={`rotate(${angle})`} />
      ))}
      <path d="M0 -66L9 -9L66 0L9 9L0 66L-9 9L-66 0L-9 -9Z" />
      <path class="half" d="M0 -66V66L9 9ZM0 0H66L9 9Z" />
      <text y="-92" text-anchor="middle">N</text>
    </g>
  );
}

/**
 * The chart's border, with dark and light steps in turn. At the left and the right, each step is one
 * minute of latitude. At the top and the bottom, each step is two minutes of longitude.
 */
function Border() {
  const steps = Array.from({ length: 20 }, (_, index) => index * MILE);
  return (
    <g class="border" aria-hidden="true">
      {steps.map((at, index) => (
        <g class={index % 2 ? "odd" : "even"}>
          <rect x={-16} y={at} width="16" height={MILE} />
          <rect x={1000} y={at} width="16" height={MILE} />
          <rect x={at} y={-16} width={MILE} height="16" />
          <rect x={at} y={1000} width={MILE} height="16" />
        </g>
      ))}
      <rect class="line" width="1000" height="1000" />
      <rect class="line" x="-16" y="-16" width="1032" height="1032" />
    </g>
  );
}
