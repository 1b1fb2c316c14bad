"""River, scikit-learn and LightGBM behind one interface."""
