"""What only vision tasks need: decoding and resizing, headers of image files, augmentation, families of backbones."""
