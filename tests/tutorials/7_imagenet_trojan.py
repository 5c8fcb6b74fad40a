"""The conclusions of tutorials/7_imagenet_trojan.ipynb, over its variables."""

planted = {"bullfrog", "albatross", "orangutan", "goose"}
assert {first, second, third, fourth} == planted, "the planted ones come first"
assert margins[fourth] - margins[other] > 5, "far ahead of the others"
assert powers[first] > 0.9
assert powers[second] > 0.9
assert powers[other] < 0.1
assert names[model(photo).argmax()] == "espresso"
