/**
 * `<Embed>` shows a contained or linked card inside another card's template.
 *
 * A contained card is part of the document of the card around it. A linked card has a document of
 * its own. If the template of a linked card fails, a placeholder is shown. If cards embed each
 * other in a circle, the circle ends with the format `atom` or a plain link. So a linked card can't
 * break the card around it.
 */
import { Component, type ComponentChildren, type ComponentType, h } from "preact";
import { type Card, classOf, displayNameOf, pageOf, stateOf, titleOf } from "./card.ts";
import { isAround, type Place, PlaceContext } from "./context.ts";
import { UnavailableCard } from "./store.ts";
import type { AnyCard, AnyTemplate, Format, TemplateProps } from "./types.ts";

/** How many embedded cards may be inside each other. Deeper cards are shown as plain links. */
const MAX_DEPTH = 8;

/** In these formats, cards usually embed other cards, and so can embed each other in a circle. */
const OPEN_FORMATS: readonly Format[] = ["isolated", "embedded", "fitted"];

export interface EmbedProps {
  card: Card | null | undefined;
  format?: Format;
}

interface EmbedState {
  failed?: boolean;
}

/** Shows `card` in `format`. The default format is `embedded`. Shows nothing if `card` is null. */
export class Embed extends Component<EmbedProps, EmbedState> {
  static contextType = PlaceContext;

  /**
   * Shows a placeholder if the template of a linked card fails. If the template of a contained card
   * fails, throws the error again, so that the card around it fails too.
   */
  componentDidCatch(error: unknown) {
    if (!this.props.card || stateOf(this.props.card).path !== "") throw error;
    this.setState({ failed: true });
  }

  render() {
    const { card } = this.props;
    const place = this.context as Place;
    if (!card) return null;
    if (this.state.failed || card instanceof UnavailableCard) return <Unavailable card={card} />;
    const format = shownFormat(place, card, this.props.format ?? "embedded");
    if (!format) return <Short card={card} />;
    const inner = nested({ ...place, card, format, around: place, depth: place.depth + 1 });
    const Wrapper = format === "atom" ? "span" : "div";
    return (
      <Wrapper
        class={`rb-embed rb-embed-${format}`}
        data-card-type={displayNameOf(classOf(card))}
        data-styles={place.styles.keys(classOf(card))}
      >
        {inner}
      </Wrapper>
    );
  }
}

/**
 * Renders `place.card` in the format `place.format`. Uses the template that the card's class has
 * for the format, or the default template if the class has none.
 */
export function nested(place: Place) {
  const { card, format, realm, styles } = place;
  const own = classOf(card)[format];
  const template: AnyTemplate = own ?? place.defaults[format];
  if (format !== "head") {
    styles.use(classOf(card), place.around === null);
    if (!own) styles.useDefaults();
  }
  const content = h(template as ComponentType<TemplateProps>, {
    card: card as AnyCard,
    realm,
    format,
  });
  return <PlaceContext.Provider value={place}>{content}</PlaceContext.Provider>;
}

/**
 * Returns the format in which to embed the card: `wanted`, or `atom` if `wanted` would show the
 * card inside itself. Returns null if only a plain link is possible, because the card would be an
 * atom inside its own atom, or because too many cards are inside each other.
 */
function shownFormat(place: Place, card: Card, wanted: Format): Format | null {
  if (place.depth >= MAX_DEPTH) return null;
  const format = OPEN_FORMATS.includes(wanted) && isAround(place, card, OPEN_FORMATS)
    ? "atom"
    : wanted;
  return format === "atom" && isAround(place, card, ["atom"]) ? null : format;
}

function Short({ card }: { card: Card }) {
  return <a class="rb-atom" href={pageOf(card)}>{titleOf(card)}</a>;
}

function Unavailable({ card }: { card: Card }) {
  const { attributes } = stateOf(card);
  const written = [attributes.title, attributes.name].find((value) => typeof value === "string");
  return (
    <a class="rb-unavailable" href={pageOf(card)} title="This card can't be shown at the moment">
      {written as string | undefined ?? titleOf(card)} <small>unavailable</small>
    </a>
  );
}

export interface LinkProps {
  card: Card | null | undefined;
  class?: string;
  children?: ComponentChildren;
}

/** A link to a card's page. The text of the link is `children`, or else the card's title. */
export function Link({ card, class: className, children }: LinkProps) {
  if (!card) return <span class={className}>{children}</span>;
  return <a class={className} href={pageOf(card)}>{children ?? titleOf(card)}</a>;
}
