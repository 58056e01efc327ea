package io.stopover.trino;

import io.stopover.trino.testing.TestingStopover.Storage;

/** Base directories: two local folders. */
class TestLocalStopoverExchangeManager
        extends AbstractTestStopoverExchangeManager
{
    TestLocalStopoverExchangeManager()
    {
        super(Storage.LOCAL);
    }
}
