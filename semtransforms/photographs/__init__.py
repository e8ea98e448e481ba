"""An owner's photographs: one call that looks, plans, fits a private generator, protects and checks."""
