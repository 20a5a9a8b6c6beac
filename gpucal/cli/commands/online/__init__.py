"""Commands of ``gpucal online``, registered in app. Ordinary commands lie one folder up."""
