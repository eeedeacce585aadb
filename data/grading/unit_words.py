"""Says which words beside a number cannot be a unit or the noun that it counts.

Any noun may be counted (`5 apples`), so nouns cannot be listed. What changes the value of the
number (a scale, a fraction, an operation, a sign) or doubts it, is listed, and so are the endings
of such words: with them, an answer is not the bare number.
"""

import re

_OPERATIONS = """
and base choose cosine cubed factorial into less log minus mod more over plus power root sine
squared times sin cos tan cot sec csc exp max min det gcd lcm arg abc maximum minimum recurring
repeating recur remainder union intersect double triple quadruple twice thrice fold percentile
reciprocal inverse complement conjugate factor prime point bar hat decimal dot
"""
_SCALES = """
dozen dozens billion billions hundred hundreds million millions thousand thousands trillion
trillions lakh lakhs crore crores half halves third thirds fourth fourths quarter quarters grand
mil mils mill mills mille thou kilo kilos myriad myriads googol googolplex score scores gross pair
pairs couple couples trio trios duo duos quartet quartets fortnight fortnights decade decades
century centuries hundredweight millennium millennia percentage permille promille permil ppm ppb
basis bp bps zillion zillions mega giga tera mio mrd bil bill mln bln
"""
_NUMBERS = """
one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty twenties thirty forty fifty sixty seventy eighty ninety
"""
_LETTERS = """
alpha beta delta eta gamma infinity iota lambda omega phi sigma theta zeta
"""
_SIGNS = """
nor not than if when unless but except without negative positive through until since because where
excluding including equals both either before after above below under exceed exceeds beyond fewer
loss losses debt debts deficit deficits short shortage shortfall down downward downwards upward
upwards onward onwards behind ago early late missing nil off out many odd something
anything nothing none
lost opposite upon non kind negatives fake impossible lower higher smaller bigger larger greater
"""
_DOUBTS = """
maybe false true while wrong incorrect almost perhaps approximate invalid doubtful uncertain unsure
guess guessed mistake error unknown
"""
_NEVER = frozenset(' '.join([_OPERATIONS, _SCALES, _NUMBERS, _LETTERS, _SIGNS, _DOUBTS]).split())
_ENDINGS = re.compile(r'.+illions?|.+ths?|.+ed|.+ly|.*ish|.+-fold|.+fold')
_NOUN_WORDS = """
month months bath baths path paths moth moths cloth cloths tablecloth tablecloths booth booths
mouth mouths youth youths length lengths width widths depth depths tooth sloth sloths mammoth
mammoths wreath wreaths breath breaths birth births death deaths health growth strength
strengths worth sabbath bed seed feed weed speed breed shed sled reed deed steed bread thread
ed needed required used remained earned saved baked sold family fly jelly lily assembly supply
butterfly dragonfly bully belly ally reply daily weekly monthly yearly hourly nightly fish dish
radish goldfish shellfish starfish jellyfish catfish swordfish polish
"""
_NOUNS = frozenset(_NOUN_WORDS.split())


def doubt(text: str) -> bool:
    """Returns True if a remark on a number denies or doubts it: `5 (wrong)`, `5 (not)`."""
    return bool({*_DOUBTS.split(), 'not', 'no', 'never'} & set(re.findall('[a-z]+', text.lower())))


def may_be_unit(word: str) -> bool:
    """Returns True if a word in small letters may be a unit or a noun that a number counts."""
    if word.startswith(('half-', 'quarter-')):
        return False
    parts = [word, word.rpartition('-')[2]]
    return not any(
        part in _NEVER or part not in _NOUNS and _ENDINGS.fullmatch(part) for part in parts
    )
