"""Networks as most users have them: a published backbone, fine-tuned on a few classes of photos."""
