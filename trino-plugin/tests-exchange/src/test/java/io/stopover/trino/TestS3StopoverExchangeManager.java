package io.stopover.trino;

import io.stopover.trino.testing.TestingStopover.Storage;

/** Base directories: two buckets of an S3 server. */
class TestS3StopoverExchangeManager
        extends AbstractTestStopoverExchangeManager
{
    TestS3StopoverExchangeManager()
    {
        super(Storage.S3);
    }
}
