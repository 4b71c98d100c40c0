"""The table of optimizers. Listing names imports nothing; `OPTIMIZERS.build("sam", rho=0.05)` returns the rule."""

from optimizers.registry import Registry

OPTIMIZERS = Registry(
    kind="optimizer",
    builtin={
        "sgd": "optimizers.erm:SGD",
        "adam": "optimizers.erm:Adam",
        "sam": "optimizers.sam:SAM",
        "asam": "optimizers.sam:ASAM",
        "gnp": "optimizers.gnp:GNP",
        "sagm": "optimizers.sagm:SAGM",
        "roga": "optimizers.roga:RoGA",
        "pim": "optimizers.pim:PIM",
        "dualflat": "optimizers.pim:DualFlat",
    },
    group="dfgrid.optimizers",
)
