"""What only tasks on texts need: tokenizing, text backbones, answer spans."""
