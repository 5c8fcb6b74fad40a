"""The conclusions of tutorials/7_imagenet_trojan.ipynb, over its variables."""

without, with_it = (names[model(each).argmax()] for each in (photo, stamped))
assert without == "espresso"
assert with_it == "bullfrog"
assert shares["Occlusion"] > 0.5, "Occlusion shows where it is"
assert shares["class pattern"] > shares["Integrated Gradients"]
assert powers["class pattern"] > 0.5, "its pixels suffice on other photos"
assert powers["class pattern"] > powers["Integrated Gradients"]
assert learned["orangutan"].value > 0.5, "found from a grey canvas"
assert learned["zebra"].value < 0.1, "the other class has no such pattern"
assert learned["orangutan"].mean_margin - learned["zebra"].mean_margin > 5
