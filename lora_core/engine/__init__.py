"""What needs diffusers, transformers and peft: training, generation, inpainting."""
