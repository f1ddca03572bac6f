/**
 * Draws a light as it looks by day. The light's height, build and bands determine the drawing. One
 * unit of the drawing is one metre.
 */
import { Lamp, readCharacter } from "./rhythm.tsx";

interface DaymarkProps {
  /** The id of the clip path, unique in the page. */
  id: string;
  kind: string;
  /** Colours from the top down. */
  bands: string[];
  /** Metres from base to vane. */
  height: number;
  notation?: string;
}

const PAINT: Record<string, string> = {
  white: "#f3efe2",
  red: "#b5342c",
  black: "#20282c",
  yellow: "#e3b02f",
  green: "#2f7d55",
  stone: "#a9a598",
};

/** The outline of the painted part, scaled to the tower's height; y grows downwards. */
function outline(kind: string, h: number): { path: string; top: number; width: number } {
  const shape = (base: number, head: number, top: number, bend = 0) => ({
    top,
    width: head,
    path: `M${-base} 0 Q${-head - bend} ${-top * 0.45} ${-head} ${-top} H${head} ` +
      `Q${head + bend} ${-top * 0.45} ${base} 0 Z`,
  });
  switch (kind) {
    case "tower":
      return shape(1.6 + h * 0.095, 1.1 + h * 0.055, h * 0.83, h * 0.025);
    case "pillar":
      return shape(6.6, 2.7, h * 0.86, 0.5);
    case "column":
      return shape(0.9, 0.7, h * 0.72);
    case "pyramid":
      return shape(2.4, 0.5, h * 0.8, 0.95);
    case "cardinal":
      return shape(3, 0.9, h * 0.56, 1);
    case "buoy":
      return shape(1.7, 0.6, h * 0.62, 1.1);
    case "chapel":
      return shape(3, 2.9, h * 0.74, 0.02);
    case "lattice":
      return shape(3, 1.1, h * 0.8, 0.95);
    case "ruin":
      return {
        top: h * 0.8,
        width: 3,
        path: `M-5.2 0 L-4.2 ${-h * 0.7} L-3 ${-h * 0.66} L-2.2 ${-h * 0.82} L-0.6 ${-h * 0.76} ` +
          `L0.8 ${-h * 0.9} L2 ${-h * 0.72} L3.6 ${-h * 0.8} L5.2 0 Z`,
      };
    default: {
      const wall = h * 0.5;
      const half = Math.max(2.4, h * 0.42);
      return {
        top: h * 0.72,
        width: 1,
        path: `M${-half} 0 V${-wall} L-1 ${-h * 0.72} H1 L${half} ${-wall} V0 Z`,
      };
    }
  }
}

export function Daymark({ id, kind, bands, height: h, notation = "" }: DaymarkProps) {
  const { path, top, width } = outline(kind, h);
  const clip = `bands-${id}`;
  const upright = kind === "buoy";
  const step = (upright ? 4 : top) / bands.length;
  const lantern = Math.min(2.6, Math.max(1.1, h * 0.1));
  const half = Math.min(width * 0.66, lantern * 0.62);
  const character = readCharacter(notation);
  return (
    <g class={`daymark ${kind}`}>
      <clipPath id={clip}>
        <path d={path} />
      </clipPath>
      <g clip-path={`url(#${clip})`}>
        {bands.map((band, index) => (
          <rect
            fill={PAINT[band] ?? band}
            x={upright ? -2 + index * step : -h}
            y={upright ? -h : -top + index * step - (index === 0 ? h : 0)}
            width={upright ? step + 0.05 : h * 2}
            height={upright ? h : step + 0.05 + (index === 0 ? h : 0)}
          />
        ))}
        <rect class="shade" x="0.3" y={-h} width={h} height={h} />
        {kind === "lattice" && (
          <path
            class="braces"
            d={`M-3 0 L1.4 ${-top * 0.5} L-1.2 ${-top} M3 0 L-1.4 ${-top * 0.5} L1.2 ${-top} M-4 ${
              -top * 0.5
            } H4`}
          />
        )}
      </g>
      {(kind === "tower" || kind === "pillar") && (
        <g class="windows">
          <rect x="-0.35" y={-h * 0.3} width="0.7" height="1.1" />
          <rect x="-0.35" y={-h * 0.56} width="0.7" height="1.1" />
          <rect x="-0.6" y="-2" width="1.2" height="2" />
        </g>
      )}
      {kind === "house" && (
        <g class="windows">
          <rect x="-0.5" y={-h * 0.2} width="1" height={h * 0.2} />
          <rect x={-h * 0.3} y={-h * 0.38} width="0.9" height="1.1" />
          <rect x={h * 0.3 - 0.9} y={-h * 0.38} width="0.9" height="1.1" />
        </g>
      )}
      {kind === "chapel" && (
        <g class="windows">
          <path d={`M-0.7 ${-h * 0.46} v-2 q0.7 -1.2 1.4 0 v2 z`} />
          <path d="M-0.8 0 v-2.4 q0.8 -1.2 1.6 0 v2.4 z" />
        </g>
      )}
      {kind !== "ruin" && (
        <g transform={`translate(0 ${-top})`}>
          <rect class="gallery" x={-width * 1.25} y="-0.3" width={width * 2.5} height="0.45" />
          <rect class="glass" x={-half} y={-0.3 - lantern} width={half * 2} height={lantern} />
          <path
            class="dome"
            d={`M${-half * 1.25} ${-0.3 - lantern} Q0 ${-0.6 - lantern * 1.9} ${half * 1.25} ${
              -0.3 - lantern
            } Z`}
          />
          {kind === "cardinal" && <TopMark bands={bands} y={-lantern * 1.9} />}
          {character && (
            <Lamp
              character={character}
              cy={-0.3 - lantern / 2}
              r={lantern * 0.34}
              glow={kind === "tower" || kind === "pillar" ? 7 : 4}
            />
          )}
        </g>
      )}
    </g>
  );
}

/** Draws the two cones on a mark. On an east mark they point apart; on a south mark both point down. */
function TopMark({ bands, y }: { bands: string[]; y: number }) {
  const lower = "M-0.6 -0.2 L0.6 -0.2 L0 0.8 Z";
  const upper = bands.length === 3
    ? "M-0.6 -0.5 L0.6 -0.5 L0 -1.5 Z"
    : "M-0.6 -1.5 L0.6 -1.5 L0 -0.5 Z";
  return <path class="dome" transform={`translate(0 ${y - 0.6})`} d={`${lower} ${upper}`} />;
}
