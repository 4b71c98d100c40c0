"""Everything meets here: grids, data, training, evaluation, the command line."""
