"""Invented names: projects, their owners, components, people and what is derived from them."""

from nanochat_tct.synthetic.template import LEXICON, Generator
from nanochat_tct.synthetic.writer import Writer

NOUNS = (
    "anchor anvil aurora badger bamboo beacon birch bison bolt bramble bridge brook cactus candle canyon cedar cinder "
    "clover cobalt comet compass copper coral cosmos cricket crow dahlia delta dolphin dune eagle echo ember falcon "
    "fathom fern finch fjord flint forge fox galaxy garnet gecko geyser glacier granite grove hammer harbor harvest "
    "hawk hazel heron horizon indigo iris island ivory jasper juniper kestrel kiln lagoon lantern lark lattice laurel "
    "ledger lemur lilac lotus lynx magnet mango maple marlin meadow mesa meteor mint mirror monsoon moose mosaic moss "
    "nebula nectar nettle nimbus nova oak oasis ocean octopus olive onyx opal orbit orchid osprey otter owl oyster "
    "panda parrot pebble pepper petal phoenix pigeon pine pixel plover plum poplar prairie prism puffin quail quarry "
    "quartz quill rabbit raven reef ridge river robin rocket rune sage salmon sapphire sequoia shore signal sparrow "
    "spruce squid starling stone stork summit swallow tamarind tangle teal tempo thicket thistle thunder tide tiger "
    "timber topaz tulip tundra valley vector velvet violet vortex walnut walrus willow wren yarrow zebra zenith zephyr"
).split()
ADJECTIVES = (
    "amber ancient arctic autumn bold brave bright broad calm clear clever cosmic crisp deep eager early fast fierce "
    "fluffy gentle giant golden grand green happy hidden hollow humble icy jolly keen kind late little lively lucky "
    "lunar mellow mighty misty modern nimble noble open patient plain polar proud quick quiet rapid red royal rusty "
    "salty sandy sharp shiny silent silver simple sleepy slim smart smooth snowy soft solar solid steady still stormy "
    "sunny super swift tall tidy tiny true upper vast warm wild wise witty young"
).split()
SYLLABLES = (
    "al an ar ba bel bo ca chi co cor da del di do dra el en fa fi fle ga gi glo gra ha hy in ja ka ke kla ko ku la "
    "le li lo lu ma me mi mo na ne ni no nu o or pa pe pi plo po qua ra re ri ro ru sa se sha si so sta su ta te ti "
    "to tri tu u va ve vi vo wa xa xi ya yo za ze zi zo"
).split()
ENDINGS = (
    "base box cast craft db desk dock flow gate graph grid hub kit lab line link mesh mind path pilot port scope "
    "shift space stack store stream sync tools vault verse view ware watch wave wire works"
).split()
SUFFIXES = (
    "api app agent bench bot charts cli client common compiler connector console core demo docs engine examples "
    "exporter frontend gateway infra js lib manager operator parser platform plugin portal provider proxy py rs runtime "
    "sdk server service site spec stdlib studio templates toolkit tools ui utils web worker"
).split()
OWNER_ENDINGS = (
    "labs hq io dev org works systems tech software foundation cloud ai data oss collective studio".split()
)
COMPONENTS = (
    "accounts admin agent alerts analytics api archive assets auth backend billing broker cache catalog cli client "
    "codegen collector common compiler config console contracts controller core crawler dashboard database decoder "
    "demo dispatcher driver editor encoder engine events examples exporter extension fetcher formatter frontend gateway "
    "generator graph graphql grpc harness identity importer indexer ingest installer integration inventory jobs kernel "
    "launcher ledger lexer library lint loader logging mailer metrics middleware migrations mobile models monitor "
    "network notifications operator orders parser payments permissions pipeline planner plugin portal processor profiler "
    "protocol provider proxy publisher query queue recorder registry renderer reporter resolver router runner runtime "
    "sandbox scanner scheduler schema scraper sdk search server session shared shell shipping signer simulator site "
    "storage storefront streaming sync telemetry templates terminal tokenizer toolbox tracing transport ui updater "
    "uploader users utils validator viewer watcher web website webhooks widgets worker workspace"
).split()
PEOPLE = (
    "alex amara bjorn carla chen dana devi elif emeka farid greta hana igor ines jonas jun kofi lena luca maya mei "
    "nadia noor olga omar petra priya rafa rosa sam sofia tariq tomas uma vera wei yuki zoe"
).split()


def _coined(writer: Writer) -> str:
    return "".join([writer.pick(SYLLABLES) for _ in range(writer.number(2, 3))])


def _stem(writer: Writer) -> str:
    kind = writer.random()
    if kind < 0.3:
        return writer.pick(NOUNS)
    if kind < 0.55:
        return _coined(writer)
    if kind < 0.75:
        return writer.pick(NOUNS) + writer.pick(ENDINGS)
    if kind < 0.85:
        return _coined(writer) + writer.pick(ENDINGS)
    return f"{writer.pick(ADJECTIVES)}-{writer.pick(NOUNS)}"


def _project(writer: Writer) -> str:
    stem = _stem(writer)
    return f"{stem}-{writer.pick(SUFFIXES)}" if writer.chance(0.4) else stem


def _owner(writer: Writer) -> str:
    kind = writer.random()
    if kind < 0.35:
        return str(LEXICON.word(writer, "stem"))
    if kind < 0.6:
        return f"{LEXICON.word(writer, 'stem')}{writer.pick(('-', ''))}{writer.pick(OWNER_ENDINGS)}"
    if kind < 0.8:
        return f"{writer.pick(NOUNS)}{writer.pick(('-', ''))}{writer.pick(OWNER_ENDINGS)}"
    return f"{writer.pick(PEOPLE)}{writer.pick(('', '-', ''))}{writer.pick(NOUNS)}"


def _snake(writer: Writer) -> str:
    return str(LEXICON.word(writer, "project")).replace("-", "_")


def _flat(writer: Writer) -> str:
    return str(LEXICON.word(writer, "project")).replace("-", "")


def _title(writer: Writer) -> str:
    return " ".join([part.capitalize() for part in str(LEXICON.word(writer, "project")).split("-")])


def _pascal(writer: Writer) -> str:
    return "".join([part.capitalize() for part in str(LEXICON.word(writer, "project")).split("-")])


def _shout(writer: Writer) -> str:
    return _snake(writer).upper()


def _components(writer: Writer) -> list[str]:
    return writer.sample(COMPONENTS, writer.number(3, 9))


def _component(writer: Writer) -> str:
    return writer.pick(LEXICON.word(writer, "components"))


def _shout_of(name: str) -> Generator:
    return lambda writer: str(LEXICON.word(writer, name)).upper().replace("-", "_")


LEXICON.facts(
    stem=_stem,
    project=_project,
    owner=_owner,
    Project=_title,
    Pascal=_pascal,
    package=_snake,
    flat=_flat,
    PROJECT=_shout,
    components=_components,
    binary="‹‹project›|‹flat›|‹stem›|‹stem›ctl›",
    repository="‹owner›/‹project›",
    main="‹main|main|main|main|main|master|master|develop|dev|trunk›",
    domain="‹flat›.‹io|dev|org|com|app|sh|net›",
    registry="‹ghcr.io|ghcr.io|docker.io|quay.io|registry.‹flat›.io›",
    image="‹registry›/‹owner›/‹project›",
    region="‹us-east-1|us-west-2|eu-west-1|eu-central-1|ap-southeast-2|us-central1|europe-west4›",
    account="‹100000000000..999999999999›",
    bucket="‹‹flat›|‹owner››-‹artifacts|releases|cache|ci|builds|assets›‹|-‹prod|staging|dev››",
    workdir="‹./‹focus›|‹focus›|packages/‹focus›|services/‹focus›|src/‹focus›|crates/‹focus›|apps/‹focus›|backend|web|"
    "./frontend|docs|tools›",
    bot="‹github-actions[bot]|‹stem›-bot|‹flat›-ci|‹owner›-bot|renovate[bot]|dependabot[bot]›",
    focus=_component,
    it=_component,
    IT=_shout_of("it"),
    FOCUS=_shout_of("focus"),
)
LEXICON.phrases(
    component=_component,
    person=lambda writer: writer.pick(PEOPLE),
    noun=lambda writer: writer.pick(NOUNS),
    adjective=lambda writer: writer.pick(ADJECTIVES),
    coined=_coined,
    anywhere=lambda writer: writer.pick(COMPONENTS),
)
