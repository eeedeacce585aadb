"""Further pairs of (answer, reference): brackets, words, marks, numbers that algebra misreads."""

NOUNS = (
    'apples|months|baths|feed|families|dollars|hours needed|students|'
    'cm|fish|units|square units|ways|years old|seeds|flies|'
    'miles|pieces of candy|eggs per day'
)
NO_UNITS = """
grand mil thou quadrillion quintillions gazillion googol score gross pairs K bn sixteenths
twelfth billionths thousandths hundredths doubled halved tripled twice reciprocal squared
raised divided owed fewer loss losses debt deficit short wrong incorrect almost perhaps
probably possibly nearly permille promille ppm ish off decades couple kilos hundredweight nil
twofold basis|points per|mille too|many percent|off mil|people units|down K|dollars point prime
bar
"""

RIGHT = {
    'characters': [
        ('log\u20828', '3'),
        ('5 \u339d', '5'),
        ('5 \u2103', '5'),
        ('\u212f', 'e'),
        ('2\U0001d70b', r'2\pi'),
    ],
    'sides': [
        (r'x<\frac12', 'x<0.5'),
        (r'0.5>x', r'x<\frac{1}{2}'),
        (r'x\le2^{-200}', r'x \leq \frac{1}{2^{200}}'),
        (r'\pm10^{-30}', r'\pm\frac{1}{10^{30}}'),
        (r'\frac{2\pm\sqrt{8}}{2}', r'1\pm\sqrt2'),
        (r'\sqrt{8}:2', r'2\sqrt2:2'),
        (r'10^{-30}:1', r'\frac{1}{10^{30}}:1'),
        (r'1 < x \le 2', r'2 \ge x > 1'),
    ],
    'quotation marks and primes': [
        ('"5"', '5'),
        ("'5'", '5'),
        ('\u201c5\u201d', '5'),
        ("f'(x)", "$f'(x)$"),
        ("5's", "5's"),
        ("12'345", '12345'),
        ('5\'11"', '5\' 11"'),
    ],
    'brackets': [
        ('(x,y)=(2,1)', '(2,1)'),
        ('(x, y, z) = (1, 2, 3)', '(1,2,3)'),
        ('1,2', r'\{2,1\}'),
        (r'\{1,2\}', '2, 1'),
    ],
    'nouns': [(f'5 {word}', '5') for word in NOUNS.split('|')],
}

WRONG = {
    'numbers that algebra rounds': [
        pair
        for one, two in (
            (r'x<6.02\times10^{-23}', r'x<6.63\times10^{-34}'),
            (r'x\le2^{-201}', r'x\le2^{-200}'),
            (r'\pm\frac1{2004!}', r'\pm\frac1{2006!}'),
            (r'1\pm10^{-30}', r'1\pm10^{-31}'),
            ('|x|<10^{-20}', '|x|<0'),
            ('x<0.333333333333333333', r'x<\frac13'),
            (r'x<\sqrt2', 'x<1.4142135623730951'),
            ('0<x<10^{-30}', '0<x<10^{-31}'),
            ('x<1e-9', 'x<2e-9'),
            ('x<0.0000001', 'x<0.0000002'),
            (r'x\ne10^{-30}', r'x\ne 10^{-31}'),
            (r'x\le 1.00000000000000000001', r'x\le 1'),
            ('x > 100000000000000000001', 'x > 100000000000000000002'),
            (r'x<\frac{1}{2006!}', r'x<\frac{1}{2004!}'),
            (r'\frac{1\pm 10^{-30}}{2}', r'\frac{1\pm 10^{-31}}{2}'),
            (r'10^{-30}:1', '10^{-31}:1'),
            (r'\sqrt{2}:10^{20}', r'\sqrt{2}:10^{21}'),
            (r'\{x|x<10^{-30}\}', r'\{x|x<10^{-31}\}'),
            (r'(0,10^{-30})\cap(1,2)', r'(0,10^{-31})\cap(1,2)'),
            (r'x<e^{-100}', 'x<0'),
            (r'x<1.414214', r'x<\sqrt2'),
            ('x < 1000000000000000', 'x < 1000000000000001'),
            (r'\mp3', r'\pm3'),
            (r'a\mp b', r'a\pm b'),
        )
        for pair in ((one, two), (two, one))
    ],
    'slashes': [
        ('2/3x', r'\frac{2}{3x}'),
        (r'1/2\pi', r'\frac{1}{2\pi}'),
        ('1/2(x+1)', r'\frac{1}{2(x+1)}'),
        ('x<1/2y', r'x<\frac{1}{2y}'),
    ],
    'primes': [
        pair
        for one, two in (
            ('5\'11"', '511'),
            ("3'4", '34'),
            ('5\'00"', '500'),
            ('12\'500"', '12500'),
            ('5\u2032 11\u2033', '511'),
            ('5\u20196\u201d', '56'),
            ('51\'1"', '5\'11"'),
            ("f'(x)", 'f(x)'),
            ("f''(x)", "f'(x)"),
            (r'f^{\prime}(x)', 'f(x)'),
            ("y'", 'y'),
            ("A'B'", 'AB'),
            ("(fg)'", 'fg'),
            ('f^{-1}(x)', '1/f(x)'),
            (r'g^{-1}(2)', r'\frac{1}{g(2)}'),
            ('5\u2032', '5'),
            ("1'23", '123'),
            ("AB'", 'AB'),
            ('f^{(2)}(x)', 'f^2(x)'),
            ('f^{-1}', '1/f'),
        )
        for pair in ((one, two), (two, one))
    ],
    'brackets': [
        pair
        for one, two in (
            ('(2,1)', '1,2'),
            ('(3,-1)', '-1,3'),
            ('(-1,1)', r'\{-1,1\}'),
            ('(0,1)', '0,1'),
            ('(2,1)', r'\{1,2\}'),
            ('[2,1]', '1,2'),
            ('(0,1]', r'\{0,1\}'),
            ('(1,2,3)', '3,2,1'),
            ('(x,y)=(2,1)', '1,2'),
            ('(x,y)=(2,1)', '(1,2)'),
            ('(x, y) = (2, 1)', '(y,x)=(2,1)'),
            (r'\left(\frac12, 2\right)', r'2, \frac12'),
            ('(1 and 2)', '(2,1)'),
            ('((2,1))', '1,2'),
            (r'x\in(1,2)', r'\{1,2\}'),
            ('0<x<1', '0,1'),
        )
        for pair in ((one, two), (two, one))
    ],
    'decimal commas': [
        pair
        for one, two in (
            ('0,125', '125'),
            ('0,500', '500'),
            ('-0,125', '-125'),
            ('$0,500', '500'),
            ('01,234', '1234'),
            ('00,123', '123'),
            ('0,250 kg', '250'),
            ('0,001', '1'),
            ('0,123,456', '123456'),
        )
        for pair in ((one, two), (two, one))
    ],
    'words that are no units': [
        pair
        for word in NO_UNITS.split()
        for pair in ((f'5 {word.replace("|", " ")}', '5'), ('5', f'5 {word.replace("|", " ")}'))
    ],
}
