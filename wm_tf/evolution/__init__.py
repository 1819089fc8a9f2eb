"""CMA-ES for the controller: the strategy and its saved state, and fitness in dream and reality."""
