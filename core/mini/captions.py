"""Generate captions and prompts from a small grammar of everyday words and WordNet nouns.

`caption(rng, words)` and `scene(rng, words)` return (text, phrases). The held-out split goes by the phrases, which are
pairs of words, so that training never sees a held-out combination of subject, action and place.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

PEOPLE = """man|woman|boy|girl|child|toddler|baby|person|old man|old woman|young man|young woman|lady|guy|
teenager|couple|family|student|teacher|doctor|nurse|chef|waiter|farmer|soldier|police officer|firefighter|
construction worker|fisherman|musician|guitarist|drummer|singer|dancer|ballerina|painter|photographer|astronaut|
pilot|sailor|cowboy|knight|queen|king|princess|wizard|witch|monk|nun|priest|bride|groom|businessman|
businesswoman|skateboarder|surfer|skier|snowboarder|cyclist|runner|swimmer|tennis player|baseball player|batter|
pitcher|soccer player|basketball player|golfer|boxer|hiker|climber|jockey|motorcyclist|tourist|shopper|vendor|
street performer|clown|magician|mother|father|grandmother|grandfather|samurai|ninja|pirate|viking|robot|android|
cyborg|alien|zombie|ghost|vampire|elf|fairy|mermaid|angel|demon|superhero|goddess|warrior|barbarian|scientist|
mechanic|barista|librarian|gardener|shepherd|geisha|scarecrow|snowman|mannequin|statue""".replace("\n", "").split("|")
CROWDS = """people|men|women|children|kids|friends|tourists|students|soldiers|players|girls|boys|workers|
dancers|musicians|skiers|surfers|cyclists|pedestrians|passengers|fans|monks|adults|teenagers|robots|toddlers""".replace(
    "\n", ""
).split("|")
ANIMALS = """dog|cat|horse|cow|sheep|goat|pig|elephant|giraffe|zebra|bear|polar bear|panda|lion|tiger|leopard|
cheetah|wolf|fox|deer|moose|rabbit|squirrel|mouse|hamster|raccoon|monkey|gorilla|chimpanzee|kangaroo|koala|
sloth|otter|seal|penguin|duck|goose|swan|chicken|rooster|owl|eagle|hawk|parrot|pigeon|seagull|crow|raven|
hummingbird|flamingo|peacock|frog|turtle|tortoise|snake|lizard|iguana|crocodile|alligator|dragon|dinosaur|
tyrannosaurus|unicorn|phoenix|shark|whale|dolphin|octopus|jellyfish|goldfish|salmon|crab|lobster|butterfly|bee|
dragonfly|spider|ant|beetle|snail|corgi|poodle|golden retriever|german shepherd|husky|dachshund|bulldog|terrier|
puppy|kitten|siamese cat|tabby cat|pony|donkey|camel|llama|alpaca|bison|buffalo|ox|ram|lamb|calf|foal|hedgehog|
bat|beaver|badger|wombat|porcupine|ostrich|pelican|stork|heron|woodpecker|sparrow|robin""".replace("\n", "").split("|")
VEHICLES = """car|truck|pickup truck|bus|double decker bus|school bus|train|steam locomotive|subway train|tram|
bicycle|bike|motorcycle|scooter|van|taxi|police car|fire truck|ambulance|tractor|airplane|jet|fighter jet|
helicopter|hot air balloon|boat|sailboat|ship|cruise ship|canoe|kayak|ferry|submarine|spaceship|rocket|ufo|
carriage|wagon|sports car|convertible|jeep|tank|limousine|bulldozer|crane|skateboard|sled|gondola|biplane|
race car|minivan|trailer|yacht|raft""".replace("\n", "").split("|")
THINGS = """umbrella|chair|table|bench|couch|bed|lamp|clock|vase|book|laptop|computer|keyboard|cell phone|
television|camera|suitcase|backpack|handbag|hat|tie|scarf|shoe|boot|glove|jacket|coat|dress|helmet|sunglasses|
crown|mask|sword|shield|bow and arrow|guitar|piano|violin|drum|trumpet|saxophone|flute|microphone|ball|
baseball bat|tennis racket|frisbee|kite|surfboard|skis|snowboard|balloon|teddy bear|doll|toy|candle|lantern|
mirror|window|door|gate|fence|sign|stop sign|traffic light|street light|fire hydrant|parking meter|mailbox|
fountain|bridge|tower|castle|church|cathedral|temple|pyramid|lighthouse|windmill|barn|cabin|cottage|house|
skyscraper|building|tent|statue|monument|tree|oak tree|palm tree|pine tree|cactus|mushroom|flower|rose|tulip|
sunflower|daisy|bouquet of flowers|leaf|rock|crystal|diamond|gold coin|treasure chest|skull|skeleton|globe|map|
telescope|hourglass|key|lock|knife|fork|spoon|plate|bowl|cup|mug|glass|bottle|wine glass|teapot|kettle|pan|oven|
microwave|refrigerator|sink|toilet|bathtub|towel|pillow|blanket|rug|curtain|painting|poster|photograph|
newspaper|box|basket|bucket|ladder|hammer|chess set|playing card|dice|rubik's cube|gear|engine|wheel|anvil|
origami crane|snow globe|ring|necklace|watch|scissors|toothbrush|hair dryer|remote control|vending machine|
phone booth|satellite|planet|moon|star|cloud|rainbow|tornado|volcano|iceberg|waterfall""".replace("\n", "").split("|")
FOODS = """pizza|sandwich|hamburger|hot dog|french fries|salad|soup|pasta|spaghetti|noodles|ramen|sushi|rice|
steak|chicken|fish|shrimp|egg|omelette|bacon|sausage|bread|toast|bagel|croissant|pancake|waffle|donut|cake|
birthday cake|wedding cake|cupcake|cookie|pie|ice cream|chocolate|candy|apple|banana|orange|lemon|lime|
strawberry|blueberry|raspberry|cherry|grape|watermelon|pineapple|mango|peach|pear|avocado|tomato|potato|carrot|
broccoli|onion|garlic|pepper|corn|cucumber|lettuce|cabbage|pumpkin|cheese|butter|milk|coffee|espresso|tea|beer|
wine|juice|smoothie|cocktail|water|cereal|oatmeal|yogurt|taco|burrito|curry|dumpling|kebab|stew|sauce|honey|jam|
nuts|popcorn|pretzel""".replace("\n", "").split("|")
PERSON_ACTS = """riding a wave|riding a horse|riding a bike|riding a motorcycle|riding a skateboard|
riding an elephant|holding an umbrella|holding a baby|holding a sign|holding a cell phone|holding a surfboard|
holding a glass of wine|holding a tennis racket|holding a sword|holding a tray of food|swinging a baseball bat|
throwing a ball|catching a frisbee|kicking a soccer ball|hitting a tennis ball|shooting a basketball|
flying a kite|skiing down a slope|snowboarding down a hill|doing a trick|jumping over a ramp|jumping in the air|
running|walking|walking a dog|standing|sitting|sitting on a bench|lying down|sleeping|reading a book|
reading a newspaper|writing a letter|using a laptop|talking on a phone|taking a picture|taking a selfie|
watching television|playing video games|playing the guitar|playing the piano|playing the violin|playing chess|
playing cards|singing|dancing|painting a picture|drawing|cooking dinner|baking a cake|cutting a cake|
cutting vegetables|eating a sandwich|eating pizza|eating ice cream|eating noodles|drinking coffee|drinking beer|
drinking tea|washing dishes|brushing teeth|combing hair|taking a shower|getting a haircut|wearing a hat|
wearing a suit|wearing a red dress|wearing sunglasses|wearing a helmet|wearing a costume|smiling|laughing|
crying|looking at the camera|looking out of a window|looking in a mirror|looking up at the stars|
pointing at something|waving|hugging|kissing|shaking hands|fighting|meditating|praying|doing yoga|
lifting weights|swimming|diving|surfing|fishing|rowing a boat|paddling a canoe|driving a car|driving a truck|
waiting for a train|waiting for a bus|getting off an airplane|crossing the street|climbing a mountain|
climbing a ladder|climbing a tree|hiking|camping|building a sandcastle|building a house|repairing a car|
planting a tree|watering flowers|picking apples|feeding a giraffe|feeding birds|petting a cat|milking a cow|
herding sheep|shopping|carrying a bag|carrying a suitcase|pushing a cart|pushing a stroller|pulling a sled|
opening a door|opening a present|blowing out candles|celebrating a birthday|getting married|giving a speech|
teaching a class|performing on stage|casting a spell|riding a dragon|exploring a cave|floating in space|
leaning against a wall|kneeling|crouching|falling|flying|smoking a pipe|playing frisbee|playing baseball|
playing tennis|playing soccer|posing for a photo|preparing food|sweeping the floor""".replace("\n", "").split("|")
CROWD_ACTS = """sitting around a table|standing in line|playing a game|playing soccer|playing frisbee|
having a picnic|eating dinner|drinking beer|watching a game|watching a movie|watching the sunset|
walking down the street|walking on the beach|dancing|singing|marching in a parade|riding bikes|riding horses|
riding on a bus|flying kites|skiing|surfing|swimming|posing for a picture|waiting for a train|
shopping at a market|celebrating|protesting|praying|reading books|working on laptops|holding hands|
talking to each other|gathered around a fire|crossing the street|looking at paintings|
standing next to each other|racing|building a snowman|toasting with glasses of wine|sitting on benches|
boarding an airplane|cutting a ribbon""".replace("\n", "").split("|")
ANIMAL_ACTS = """sleeping|lying down|sitting|standing|walking|running|jumping|playing|playing with a ball|
catching a frisbee|chasing a ball|chewing on a bone|eating grass|eating leaves|eating a carrot|
eating food from a bowl|drinking water|drinking milk|grazing|looking at the camera|looking out of a window|
looking in a mirror|swimming|flying|perched on a branch|climbing a tree|hiding|hunting|fighting|
howling at the moon|yawning|stretching|licking its paw|scratching|barking|wearing a hat|wearing a sweater|
wearing sunglasses|wearing a tie|wearing a crown|wearing a space suit|reading a book|riding a skateboard|
riding a bicycle|driving a car|playing the guitar|playing chess|drinking coffee|using a computer|pulling a cart|
pulling a sled|carrying a stick|nursing its young|standing on its hind legs|crossing a road|crossing a river|
curled up|shaking off water|being petted|being fed|being washed|hatching from an egg|spreading its wings|
breathing fire|sticking out its tongue""".replace("\n", "").split("|")
VEHICLE_ACTS = """parked|parked on the side of the road|driving|driving down a road|speeding|stopped|
stopped at a light|traveling|turning a corner|covered in snow|covered in rust|covered in flowers|
covered in graffiti|being repaired|being towed|on fire|filled with people|loaded with luggage|carrying fruit|
flying|taking off|landing|floating|sinking|docked|racing|crashed|abandoned|crossing a bridge|
going through a tunnel|pulling into a station|leaving smoke behind""".replace("\n", "").split("|")
THING_STATES = """on display|broken|half empty|full of flowers|made of wood|made of stone|made of gold|
made of paper|made of ice|made of crystal|made of lego|made of vegetables|covered in moss|covered in snow|
covered in dust|covered in vines|on fire|floating|glowing|glowing in the dark|melting|exploding|hanging|lying|
standing|stacked|lit by candles|painted bright colors|decorated with lights|wrapped in ribbon|
overgrown with plants|reflecting the sky|casting a long shadow|shaped like a heart|with a face on it|
with intricate carvings|for sale|left behind|surrounded by flowers|surrounded by people""".replace("\n", "").split("|")
FOOD_STATES = """on a plate|in a bowl|on a table|on a wooden board|on a white plate|in a box|in a basket|
in a pan|in a glass|with cheese|with sauce|with vegetables|with meat and vegetables|with cream on top|
with strawberries|with a side of fries|with chopsticks|with a fork|with candles|cut in half|cut into slices|
fresh out of the oven|being served|being prepared|half eaten|sprinkled with sugar|topped with herbs|
covered in chocolate|next to a cup of coffee|next to a glass of wine""".replace("\n", "").split("|")
PLACES = """on the beach|in the ocean|on a boat|in a park|in a field|in a grassy field|in a field of flowers|
in a wheat field|in the snow|on a snowy mountain|on top of a mountain|on a hill|in a valley|in a forest|
in a dark forest|in the jungle|in the desert|in the savanna|in a swamp|in a cave|by a river|by a lake|
near a waterfall|on an island|on a cliff|under a tree|in a tree|in a garden|in a backyard|on a farm|in a barn|
behind a fence|in a zoo|in a cage|in an aquarium|underwater|in the sky|in space|on the moon|on mars|
on an alien planet|in the rain|in a storm|in the fog|in a city|on a city street|on a busy street|
on a street corner|on the sidewalk|on a dirt road|on a highway|on a bridge|in a parking lot|at a gas station|
at a train station|on the tracks|at an airport|on a runway|at a harbor|on a pier|at a market|in a shop|
in a supermarket|in a mall|in a restaurant|in a cafe|in a bar|in a kitchen|in a living room|in a bedroom|
in a bathroom|in an office|in a classroom|in a library|in a museum|in a theater|on a stage|in a church|
in a temple|in a castle|in a palace|in a hospital|in a laboratory|in a factory|in a garage|in a gym|
in a swimming pool|at a skate park|in a stadium|on a tennis court|on a baseball field|on a soccer field|
on a basketball court|on a golf course|at a party|at a wedding|at a festival|at a concert|on a couch|on a bed|
on a chair|on a bench|on a table|on a desk|on a shelf|on a counter|on the floor|on a rug|on the roof|
on a balcony|by the window|near a fireplace|in front of a mirror|in front of a house|in front of a building|
in front of a crowd|in front of a brick wall|in paris|in london|in new york|in tokyo|in venice|in egypt|
in india|in china|in africa|in alaska|in hawaii|in times square|by the eiffel tower|near the sea|in a village|
in ancient rome|in a medieval town|in a futuristic city|in a ruined city|in a post-apocalyptic wasteland|
in a cyberpunk alley|in a steampunk workshop|in an enchanted forest|in a graveyard|in a haunted house|
in a spaceship|on a pirate ship|in a bathtub|in a suitcase|in a box|in a mirror|in a cup""".replace("\n", "").split("|")
TIMES = """at sunrise|at dawn|in the morning|at noon|in the afternoon|at sunset|at dusk|in the evening|at night|
at midnight|on a sunny day|on a cloudy day|on a rainy day|on a foggy morning|on a snowy day|in spring|in summer|
in autumn|in winter|under a full moon|under a starry sky|under a blue sky|under dark clouds|
during a thunderstorm|during a sunset|at christmas|on halloween|with a sunset in the background|
with mountains in the background|with trees in the background|with a city in the background|
with the ocean in the background|with lightning in the sky|with stars in the sky""".replace("\n", "").split("|")
COLORS = """red|blue|green|yellow|orange|purple|pink|brown|black|white|gray|golden|silver|turquoise|beige|
colorful|black and white|dark blue|light green|bright red""".replace("\n", "").split("|")
ADJECTIVES = """big|small|large|tiny|huge|giant|little|old|young|new|antique|vintage|modern|beautiful|cute|ugly|
happy|sad|angry|scared|tired|fat|skinny|tall|short|long|fluffy|furry|hairy|bald|wet|dirty|clean|shiny|rusty|
wooden|metal|plastic|glass|stone|broken|empty|striped|spotted|fancy|elegant|majestic|mysterious|magical|evil|
friendly|lonely|wild|fierce|sleepy|transparent|glowing|frozen|burning|floating|flying|miniature|futuristic|
ancient|medieval|abandoned|ornate|cartoon|robotic|stuffed|inflatable|crystal|leather|knitted|fresh|delicious|
hot|cold|rotten|cheerful|serious|muscular|blonde|bearded|royal""".replace("\n", "").split("|")
RELATIONS = """next to|on top of|in front of|behind|beside|under|near|above|inside|with|and|holding|looking at|
chasing|facing|surrounded by|to the left of|to the right of|underneath|leaning on|attached to|playing with|
standing on|sitting on|covered by""".replace("\n", "").split("|")
VIEWS = """a photo of|a photograph of|a picture of|an image of|a close up of|a close-up of|a view of|
an aerial view of|a shot of|a black and white photo of|a blurry photo of|a portrait of|a selfie of|
a painting of|an oil painting of|a watercolor of|a watercolor painting of|a drawing of|a pencil sketch of|
a charcoal drawing of|an ink drawing of|a cartoon of|a comic about|an illustration of|a digital painting of|
digital art of|concept art of|a 3d render of|a sculpture of|a statue of|a marble statue of|a mosaic of|
a stained glass window of|a poster of|a logo of|an icon of|a map of|a diagram of|a tapestry of|a mural of|
graffiti of|pixel art of|a low poly render of|an origami|a photorealistic image of|a macro photograph of|
an overhead view of|a silhouette of|the back of|the reflection of|a stamp with|a t-shirt with|a postcard of|
a doodle of|a caricature of|a renaissance painting of|an abstract painting of|a surrealist painting of|
an impressionist painting of|a cubist painting of|a pop art print of|a woodblock print of|an engraving of|
a polaroid of|a film still of|a screenshot of|a toy|a plush|a bronze statue of""".replace("\n", "").split("|")
STYLES = """oil painting|watercolor|digital art|pencil sketch|ink sketch|photo|photograph|3d render|anime style|
cartoon style|pixel art|comic book style|art deco|art nouveau|ukiyo-e|impressionism|surrealism|cubism|baroque|
minimalism|pop art|vaporwave|cyberpunk|steampunk|film noir|concept art|long exposure|macro photography|
wide angle|bokeh|high contrast|soft lighting|dramatic lighting|studio lighting|golden hour|backlit|
bird's eye view|low angle shot|fisheye lens|black and white|sepia|pastel colors|vivid colors|isometric|line art|
claymation|stop motion|blueprint|crayon drawing|chalk drawing|dslr photo|4k|highly detailed""".replace("\n", "").split(
    "|"
)
NUMBERS = (
    "two|two|two|three|three|four|five|six|"
    "several|many|some|a few|a group of|a pair of|a couple of|a crowd of|a herd of|dozens of|ten"
).split("|")
VISTAS = """landscape|cityscape|seascape|room|interior|city|village|street|garden|forest|mountain|lake|river|
ruins|planet|galaxy""".replace("\n", "").split("|")
SAYINGS = """hello|welcome|open|closed|for sale|stop|no parking|happy birthday|love|peace|coffee|pizza|danger|
exit|sale|keep out|good morning|i love you|the end|thank you|rest in peace|free hugs|beware of dog|
merry christmas|taxi|bakery|books|hotel""".replace("\n", "").split("|")

Words = Mapping[str, Sequence[str]]
"""WordNet's nouns by kind: person, animal, artifact, food, plant, object."""


def article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    irregular = {
        "man": "men",
        "woman": "women",
        "child": "children",
        "person": "people",
        "sheep": "sheep",
        "deer": "deer",
        "mouse": "mice",
        "goose": "geese",
        "wolf": "wolves",
        "knife": "knives",
        "leaf": "leaves",
        "fish": "fish",
    }
    head, _, last = noun.rpartition(" ")
    if last in irregular:
        last = irregular[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


class _Draw:
    """Draws the words of one text and remembers its phrases."""

    def __init__(self, rng: random.Random, words: Words) -> None:
        self.rng, self.words, self.phrases = rng, words, []

    def noun(self, own: Sequence[str], kind: str, rare: float = 0.3) -> str:
        return (
            self.rng.choice(self.words[kind])
            if self.words.get(kind) and self.rng.random() < rare
            else self.rng.choice(own)
        )

    def described(self, noun: str) -> str:
        r = self.rng.random()
        if r < 0.2:
            noun = f"{self.rng.choice(COLORS)} {noun}"
        elif r < 0.42:
            noun = f"{self.rng.choice(ADJECTIVES)} {noun}"
        elif r < 0.5:
            noun = f"{self.rng.choice(ADJECTIVES)} {self.rng.choice(COLORS)} {noun}"
        if r < 0.5:
            self.phrases.append(noun)
        return noun

    def one(self, noun: str) -> str:
        noun = self.described(noun)
        r = self.rng.random()
        if r < 0.8:
            return article(noun)
        return f"the {noun}" if r < 0.9 else noun

    def subject(self) -> tuple[str, str]:
        """Return a noun phrase and its action or state."""
        rng = self.rng
        r = rng.random()
        if r < 0.3:
            noun, acts = self.noun(PEOPLE, "person", 0.15), PERSON_ACTS
            phrase = self.one(noun)
            if rng.random() < 0.2:
                phrase += (
                    " "
                    + rng.choice(["in", "wearing"])
                    + f" a {rng.choice(COLORS)} "
                    + rng.choice(
                        [
                            "shirt",
                            "dress",
                            "hat",
                            "coat",
                            "suit",
                            "jacket",
                            "scarf",
                            "uniform",
                            "robe",
                            "sweater",
                            "kimono",
                            "cape",
                        ]
                    )
                )
        elif r < 0.4:
            noun, acts = rng.choice(CROWDS), CROWD_ACTS
            phrase = f"{rng.choice(NUMBERS)} {noun}"
        elif r < 0.62:
            noun, acts = self.noun(ANIMALS, "animal"), ANIMAL_ACTS
            phrase = f"{rng.choice(NUMBERS)} {plural(noun)}" if rng.random() < 0.2 else self.one(noun)
        elif r < 0.73:
            noun, acts = rng.choice(VEHICLES), VEHICLE_ACTS
            phrase = f"{rng.choice(NUMBERS)} {plural(noun)}" if rng.random() < 0.15 else self.one(noun)
        elif r < 0.85:
            noun, acts = self.noun(FOODS, "food"), FOOD_STATES
            phrase = self.one(noun) if rng.random() < 0.5 else self.described(noun)
        else:
            noun, acts = self.thing(), THING_STATES
            phrase = f"{rng.choice(NUMBERS)} {plural(noun)}" if rng.random() < 0.12 else self.one(noun)
        act = rng.choice(acts)
        self.phrases.append(f"{noun} | {act}")
        return phrase, act

    def thing(self) -> str:
        r = self.rng.random()
        if r < 0.65:
            return self.noun(THINGS, "artifact", 0.4)
        return self.rng.choice(self.words["plant" if r < 0.8 else "object"])

    def sentence(self) -> str:
        rng = self.rng
        phrase, act = self.subject()
        r = rng.random()
        if r < 0.14:
            parts = [phrase]
        elif r < 0.55:
            parts = [phrase, rng.choice(["", "", "", "is ", "that is "]) + act]
        elif r < 0.8:
            other, _ = self.subject()
            relation = rng.choice(RELATIONS)
            self.phrases.append(f"{phrase} | {relation} | {other}")
            parts = [
                phrase,
                rng.choice(["", "", "sitting ", "standing "]) + relation
                if relation not in ("and", "with")
                else relation,
                other,
            ]
        elif r < 0.84:
            parts = [phrase, act, rng.choice(["while", "and"]), self.subject()[1]]
        elif r < 0.88:
            word = rng.choice(SAYINGS)
            parts = [
                rng.choice(
                    [
                        "a sign that says",
                        "a sign with the word",
                        "the word",
                        "graffiti that reads",
                        "a neon sign that says",
                    ]
                ),
                rng.choice([f'"{word}"', f"'{word}'", word, word.upper()]),
                rng.choice(["", "and " + phrase, "held by " + phrase]),
            ]
        else:
            parts = [phrase, rng.choice(PLACES), "with", self.one(self.thing())]
        if rng.random() < 0.55:
            place = rng.choice(PLACES)
            self.phrases.append(f"{parts[0]} | {place}")
            parts.append(place)
        if rng.random() < 0.22:
            parts.append(rng.choice(TIMES))
        return " ".join(part for part in parts if part)


def caption(rng: random.Random, words: Words) -> tuple[str, list[str]]:
    """One caption, mostly one sentence."""
    draw = _Draw(rng, words)
    text = draw.sentence()
    r = rng.random()
    if r < 0.16:
        text = f"{rng.choice(VIEWS)} {text}"
    elif r < 0.22:
        text = f"there is {text}"
    if rng.random() < 0.1:
        text = f"{text}. {draw.sentence()}"
    if rng.random() < 0.45:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.4:
        text += "."
    return text, draw.phrases


def scene(rng: random.Random, words: Words) -> tuple[str, list[str]]:
    """One subject of an image prompt: a caption that is often short, often drawn in a named style."""
    draw = _Draw(rng, words)
    r = rng.random()
    if r < 0.4:
        phrase, act = draw.subject()
        text = f"{phrase} {act}" if rng.random() < 0.5 else phrase
    elif r < 0.55:
        text = f"{draw.described(draw.thing())} {rng.choice(PLACES)}"
    elif r < 0.62:
        text = f"{draw.described(rng.choice(VISTAS))} {rng.choice([*TIMES, *PLACES])}"
    else:
        text = draw.sentence()
    for style in rng.sample(STYLES, rng.choice([0, 0, 1, 1, 2])):
        text += f", {style}"
    return text, draw.phrases
