/**
 * Draws a light's character as a strip of light and dark for one period, and as an animated lamp.
 *
 * Reads the notation of charts: `Fl(3) W 20s`, `Oc G 6s`, `VQ(6)+LFl W 10s`, `Mo(A) W 8s`.
 */
export interface Character {
  colours: string[];
  /** Seconds. */
  period: number;
  /** When the light is lit: the start (from the beginning of the period) and length of each flash, in seconds. */
  lit: [number, number][];
}

const NOTATION = /^(F|Fl|LFl|Oc|Iso|Q|VQ|Mo)(?:\((\d+|A)\))?(\+LFl)?\s+([WRGY]+)(?:\s+(\d+)s)?$/;

export function readCharacter(notation: string): Character | null {
  const match = NOTATION.exec(notation);
  if (!match) return null;
  const [, kind, group, plus, colours, seconds] = match;
  const period = Number(seconds ?? 1);
  const count = Number(group) || 1;
  return { colours: [...colours], period, lit: litTimes(kind, count, period, Boolean(plus)) };
}

function litTimes(kind: string, count: number, period: number, plus: boolean): [number, number][] {
  const flashes = (gap: number, length: number) =>
    Array.from({ length: count }, (_, index): [number, number] => [index * gap, length]);
  switch (kind) {
    case "F":
      return [[0, period]];
    case "Iso":
      return [[0, period / 2]];
    case "LFl":
      return [[0, 3]];
    case "Mo":
      return [[0, 0.5], [1.2, 1.5]];
    case "Q":
      return flashes(1, 0.35);
    case "VQ":
      return [...flashes(0.5, 0.25), ...(plus ? [[count * 0.5, 2] as [number, number]] : [])];
    case "Oc":
      return count === 2 ? [[1, 1], [3, period - 3]] : [[0, period - Math.floor(period / 4)]];
    default:
      return period >= 15 ? flashes(2.5, 0.75) : flashes(1.25, 0.5);
  }
}

/** The values and times of a discrete SVG animation. */
export function animationOf({ lit, period }: Character): { values: string; keyTimes: string } {
  const steps: [number, number][] = [];
  if (lit[0][0] > 0) steps.push([0, 0]);
  for (const [start, length] of lit) {
    steps.push([start / period, 1]);
    if (start + length < period) steps.push([(start + length) / period, 0]);
  }
  return {
    values: steps.map(([, value]) => value).join(";"),
    keyTimes: steps.map(([time]) => time.toFixed(4)).join(";"),
  };
}

/** The animation as text, for screen readers and where animations are off. */
function describe({ lit, period }: Character): string {
  const total = lit.reduce((sum, [, length]) => sum + length, 0);
  return `Lit for ${Number(total.toFixed(1))} of every ${period} seconds`;
}

/** One lamp that shows the character in real time. */
export function Lamp({ character, cx = 0, cy = 0, r = 6, glow = 4 }: {
  character: Character;
  cx?: number;
  cy?: number;
  r?: number;
  /** The width of the halo, as a multiple of the lamp's width. */
  glow?: number;
}) {
  const { values, keyTimes } = animationOf(character);
  return (
    <g class={`lamp ${character.colours[0]}`}>
      <g class="beat">
        <animate
          attributeName="opacity"
          calcMode="discrete"
          values={values}
          keyTimes={keyTimes}
          dur={`${character.period}s`}
          repeatCount="indefinite"
        />
        <circle class="halo" cx={cx} cy={cy} r={r * glow} />
        <circle class="halo" cx={cx} cy={cy} r={r * glow * 0.5} />
        <circle class="core" cx={cx} cy={cy} r={r} />
      </g>
      <circle class="core still" cx={cx} cy={cy} r={r} />
    </g>
  );
}

/** One period, left to right, with a tick for each second. */
export function Rhythm({ notation }: { notation: string }) {
  const character = readCharacter(notation);
  if (!character) return <p class="rhythm dark-light">No light is shown.</p>;
  const { period, colours, lit } = character;
  const scale = 520 / period;
  const ticks = Array.from({ length: period + 1 }, (_, second) => second);
  const every = period > 12 ? 5 : 1;
  return (
    <svg class="rhythm" viewBox="0 0 640 88" role="img" aria-label={describe(character)}>
      <rect class="night" width="640" height="88" rx="3" />
      <Lamp character={character} cx={48} cy={34} r={8} glow={3} />
      <g transform="translate(96 0)">
        <line class="dark" x1="0" y1="30" x2="520" y2="30" />
        {lit.flatMap(([start, length]) =>
          colours.map((colour, index) => (
            <rect
              class={`lit ${colour}`}
              x={start * scale}
              y={18 + index * (24 / colours.length)}
              width={Math.max(length * scale, 4)}
              height={24 / colours.length}
            />
          ))
        )}
        {ticks.map((second) => (
          <line
            class="tick"
            x1={second * scale}
            x2={second * scale}
            y1={second % every ? 50 : 47}
            y2={53}
          />
        ))}
        <text class="seconds" x="0" y="77">0</text>
        <text class="seconds" x="520" y="77" text-anchor="end">
          {period > 1 ? `${period} seconds` : "always"}
        </text>
      </g>
    </svg>
  );
}
